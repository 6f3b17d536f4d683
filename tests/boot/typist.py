"""Who types at the guests' terminal in a test."""

import os
import threading

from harness import boot, select


class Answers:
    """Types an answer each time the console shows a prompt: pairs of bytes, in order. For boot():
    keys=a.read, on_console=a."""

    def __init__(self, *script):
        self.script, self.seen = list(script), b""
        self.read, self.write = os.pipe()

    def __call__(self, data, _):
        self.seen += data
        while self.script and self.script[0][0] in self.seen:
            prompt, keys = self.script.pop(0)
            self.seen = self.seen.split(prompt, 1)[1]
            os.write(self.write, keys)


class Keys(threading.Thread):
    """Types one key after the other, half a second apart, until the `with` ends."""

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


def boot_with_keys(guest, keys, name):
    """A guest of guest/default.conf with option `keys`, one vCPU, and these keys typed. Those typed
    while it resets are lost: have more than one of each."""
    config = select([guest], {guest: {"cmdline": "keys", "vcpus": 1}})
    with Keys(keys) as typist:
        return boot(config=config, name=name, emulator_name="bochs3", timeout=100,
                    keys=typist.reader)
