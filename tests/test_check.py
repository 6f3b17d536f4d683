"""make check: layers, format, static analysis."""

import subprocess

import pytest

from umbra_tools.base import ROOT


@pytest.mark.parametrize("target", ["check-layers", "check-format", "check-static"])
def test_check(target):
    done = subprocess.run(["make", "-C", ROOT, "--no-print-directory", "-s", target],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
