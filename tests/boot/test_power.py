"""What ACPI does to a machine: the reset register and soft-off."""

import os
import threading

from harness import boot, select


class Typist(threading.Thread):
    """Types one key after the other, half a second apart, until it is told to stop."""

    def __init__(self, keys):
        super().__init__(daemon=True)
        self.keys = keys
        self.done = threading.Event()
        self.reader, self.writer = os.pipe()

    def run(self):
        for key in self.keys:
            if self.done.wait(0.5):
                break
            os.write(self.writer, key.encode())

    def __exit__(self, *_):
        self.done.set()
        self.join()
        os.close(self.reader)
        os.close(self.writer)

    def __enter__(self):
        self.start()
        return self


def test_reset_and_power_off():
    """Keys that are typed while the machine resets are lost: hence more than one of each."""
    config = select(["acpi"], {"acpi": {"cmdline": "keys", "vcpus": 1}})
    with Typist("rrr" + "o" * 100) as typist:
        result = boot(config=config, name="power", emulator_name="bochs3", timeout=100,
                      keys=typist.reader)
    assert "vm acpi: restarts: the guest reset its machine" in result.log, result.explain()
    assert result.console.count("waiting for a key") >= 2, result.explain()
    assert result.vms["acpi"].status == 0, result.explain()
    assert result.vms["acpi"].reason == "powered off", result.explain()
    assert result.reason == "end" and result.status == 0, result.explain()
