"""INIT to a boot processor, without a warm start: what guest/reset.c cannot live to see."""

from harness import boot, select
from test_power import Typist


def test_init_of_the_bsp_resets_the_machine():
    config = select(["reset"], {"reset": {"cmdline": "keys", "vcpus": 1}})
    with Typist("iii" + "x" * 100) as typist:
        result = boot(config=config, name="reset", emulator_name="bochs3", timeout=100,
                      keys=typist.reader)
    assert "vm reset: restarts: the guest reset its machine" in result.log, result.explain()
    assert result.console.count("waiting for a key") >= 2, result.explain()
    assert result.vms["reset"].status == 1, result.explain()
