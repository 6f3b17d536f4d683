"""A bounded run of each libFuzzer target of tests/fuzz/ (ASan and UBSan)."""

import shutil
import subprocess

import pytest

from umbra_tools.base import BUILD, ROOT

TARGETS = sorted(path.stem for path in (ROOT / "tests/fuzz").glob("*.mk"))


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target, long, tmp_path):
    # Found inputs stay in build/, so that later runs start from them; seeds are in the tree.
    corpus = BUILD / "fuzz" / f"{target}.corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = [folder for folder in [ROOT / "tests/fuzz" / target] if folder.is_dir()]
    done = subprocess.run(
        [BUILD / "fuzz" / target, f"-max_total_time={60 if long else 2}", "-timeout=10",
         "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={tmp_path}/",
         corpus, *seeds],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", timeout=600)
    for artifact in tmp_path.iterdir():
        shutil.copy(artifact, BUILD / "fuzz" / f"{target}.{artifact.name}")
    assert done.returncode == 0, f"input saved in {BUILD}/fuzz\n{done.stdout[-6000:]}"
    runs = [int(line.split()[-1]) for line in done.stdout.splitlines()
            if line.startswith("stat::number_of_executed_units")]
    assert runs and runs[0] > 50, f"the fuzzer hardly ran\n{done.stdout[-3000:]}"
