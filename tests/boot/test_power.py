"""What takes a machine down: ACPI's reset register and soft-off, and INIT to a boot processor
without a warm start, which guest/reset.c cannot live to see."""

from typist import boot_with_keys

RESTARTS = "restarts: the guest reset its machine"


def test_reset_and_power_off():
    result = boot_with_keys("acpi", "rrr" + "o" * 100, "power")
    assert f"vm acpi: {RESTARTS}" in result.log, result.explain()
    assert result.console.count("waiting for a key") >= 2, result.explain()
    assert result.vms["acpi"].status == 0, result.explain()
    assert result.vms["acpi"].reason == "powered off", result.explain()
    assert result.reason == "end" and result.status == 0, result.explain()


def test_init_of_the_bsp_resets_the_machine():
    result = boot_with_keys("reset", "iii" + "x" * 100, "reset")
    assert f"vm reset: {RESTARTS}" in result.log, result.explain()
    assert result.console.count("waiting for a key") >= 2, result.explain()
    assert result.vms["reset"].status == 1, result.explain()
