"""Host unit tests (cmocka, ASan and UBSan): one item per test function of tests/unit/*.c."""

import functools
import os
import re
import subprocess

import pytest

from umbra_tools.base import BUILD, ROOT

UNITS = sorted(path.stem for path in (ROOT / "tests/unit").glob("*.mk"))


def functions(unit):
    source = ROOT / f"tests/unit/{unit}.c"
    text = source.read_text() if source.exists() else ""
    macros = re.findall(r"^#define (\w+)\(\w+\) +cmocka_unit_test", text, re.M)
    text = re.sub(r"^#define .*", "", text, flags=re.M)
    names = "|".join([r"cmocka_unit_test\w*", *macros])
    return re.findall(rf"\b(?:{names})\(\s*(\w+)", text)


@functools.lru_cache(None)
def run(unit, long):
    """({test: passed}, exit status, output)"""
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="tap", UBSAN_OPTIONS="print_stacktrace=1",
               **({"UMBRA_TEST_LONG": "1"} if long else {}))
    done = subprocess.run([BUILD / "unit" / unit], env=env, stdin=subprocess.DEVNULL,
                          timeout=3000 if long else 300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace")
    found = re.findall(r"^(not )?ok \d+ - (\w+)", done.stdout, re.M)
    return {name: not bad for bad, name in found}, done.returncode, done.stdout


CASES = [pytest.param(unit, name, marks=pytest.mark.xdist_group(f"unit-{unit}"))
         for unit in UNITS for name in functions(unit)]


@pytest.mark.parametrize("unit,name", CASES)
def test_unit(unit, name, long):
    results, _, output = run(unit, long)
    assert results.get(name), f"{unit}: {name}\n{output[-6000:]}"


@pytest.mark.parametrize("unit", [pytest.param(unit, marks=pytest.mark.xdist_group(f"unit-{unit}"))
                                  for unit in UNITS])
def test_unit_program(unit, long):
    """The program as a whole: ends well, and ran every test that its source lists."""
    results, status, output = run(unit, long)
    assert status == 0, output[-6000:]
    assert set(functions(unit)) <= set(results) and results, output[-6000:]
