"""Boot a machine with guests for a test.

    result = boot(["exceptions", "inject"], emulator_name="bochs", cpu="tigerlake", cpus=2)
    result.vms["inject"].tap.failed

Guests are sections of guest/default.conf, by name, possibly with other settings; or a whole
configuration is given. What a boot left behind (console, log, configuration, emulator messages)
stays in build/boot-tests/NAME for a look after a failure.
"""

import dataclasses
import functools
import re
import shutil
import threading

from umbra_tools import disk, emulator, results
from umbra_tools.base import BUILD
from umbra_tools.config import Config
from umbra_tools.run import DEFAULT_CONFIG, for_emulator, needed_memory

EMULATORS = ("bochs", "bochs3")


@functools.lru_cache(None)
def bochs_version(name):
    """Version of `bochs` or `bochs3`."""
    return emulator.host_bochs_version(emulator.bochs_program(name))


def have_emulator(name):
    """Debian 13 has 3.0 only; 2.7 cannot be had there."""
    return name != "bochs" or bochs_version("bochs").startswith("2.7")


@dataclasses.dataclass
class Result:
    reason: str  # of emulator.Session: end, firmware, died, timeout, silent, stopped
    status: int  # Umbra's, if reason is `end`
    console: str
    log: str
    loader: list  # the loader's lines on the firmware console
    vms: dict  # {name: results.VmResult}
    folder: object

    def explain(self, name=None):
        """Text for a failed assertion."""
        tail = self.log.rstrip().split("\n")[-25:]
        text = f"{self.reason}, status {self.status}; files in {self.folder}\n" + "\n".join(tail)
        if self.reason == "firmware":
            text += "\n" + "\n".join(self.loader)
        if name:
            lines = self.vms[name].tap.lines
            bad = [line for i, line in enumerate(lines) if line.startswith("not ok")
                   or (line.startswith("#") and i and lines[i - 1].startswith("not ok"))]
            text = f"{self.vms[name].problem()}\n" + "\n".join(bad[:40]) + \
                   f"\n--- the end of its output\n" + "\n".join(lines[-15:]) + f"\n--- {text}"
        return text


def select(names, settings=None, umbra=None):
    """default.conf with only the VMs of `names`. settings: {vm: {key: value}}; a VM may appear
    under a second name, `NAME.SUFFIX`, with settings of its own."""
    base = Config.load(DEFAULT_CONFIG)
    config = Config(name=base.name, folder=base.folder)
    for key, value in {"order": "sequence", **(umbra or {})}.items():
        config.set("umbra", key, value)
    for name in names:
        source = name if name in base.vms() else name.split(".")[0]
        for _, section, key, value in base.entries():
            if section == f"vm {source}":
                config.set(f"vm {name}", key, value)
        for key, value in (settings or {}).get(name, {}).items():
            config.set(f"vm {name}", key, value)
    return config


def boot(guests=None, *, config=None, name=None, emulator_name="bochs", cpu="", cpus=1, memory=None,
         hide=(), usb=False, files=None, timeout=300, keys=None, on_console=None,
         nic=None, ips=None, qmp=0, on_log=None, ready=None, leader=None):
    """Boot and return a Result.

    guests  names in guest/default.conf (see select), unless
    config  a Config with paths of this machine, or text or bytes that go on the ESP as they are
    files   {path on the ESP: bytes or path, or None to leave a standard file out}
    keys    a file descriptor: what is typed; on_console(bytes, umbra_runs) sees all output
    nic     an emulator.Nic; its other end is at nic.peer. ips, qmp: as in emulator.Machine
    on_log  on_log(bytes) sees Umbra's log; ready(session) is called before the start: a thread may
            end the run by session.stop()
    leader  name of a VM: its end is the end
    """
    if isinstance(config, str):
        config = config.encode()
    if config is None:
        config = select(guests)
    contents = disk.standard_files()
    names, saved = [], []
    if isinstance(config, Config):
        for_emulator(config, emulator_name, ",".join(hide))
        names = config.vms()
        memory = memory or needed_memory(config)
        contents.update(config.collect())
        saved = config.saved_regions()
        config = config.text().encode()
    contents["umbra/umbra.conf"] = config
    for path, source in (files or {}).items():
        contents.pop(path, None)
        if source is not None:
            contents[path] = source

    folder = BUILD / "boot-tests" / re.sub(r"[^A-Za-z0-9._-]+", "-", name or "boot")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    image = disk.build_image(contents, folder / "umbra.img", saved=saved)
    machine = emulator.Machine(emulator_name, cpu, cpus, memory or 1024, usb, nic=nic,
                               ips=ips or emulator.Machine.ips, qmp=qmp)
    session = emulator.Session(machine, image, folder, on_console, on_log)
    session.leader = leader
    if ready:
        ready(session)
    session.run(timeout, keys)
    (folder / "umbra.conf").write_bytes(config)
    (folder / "console").write_bytes(session.console)
    (folder / "log").write_bytes(session.log)
    image.unlink()
    found = results.vm_results(names, session.console, session.log)
    return Result(session.reason, session.status, emulator.plain(bytes(session.console)),
                  emulator.plain(bytes(session.log)), emulator.loader_messages(session.console),
                  {r.name: r for r in found}, folder)


class Background:
    r"""boot() in a thread, for tests that do something to the machine meanwhile.

        with Background(config=..., nic=nic) as machine:
            machine.wait_log(r"address 10\.77\.0\.2")
        machine.result
    """

    def __init__(self, guests=None, **options):
        self._log, self._changed, self._session = "", threading.Condition(), None
        self.result, self.error = None, None
        options.update(on_log=self._take, ready=self._ready)
        self._thread = threading.Thread(target=self._run, args=(guests, options), daemon=True)

    def _run(self, guests, options):
        try:
            self.result = boot(guests, **options)
        except BaseException as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def _ready(self, session):
        self._session = session

    def _take(self, data):
        with self._changed:
            self._log += emulator.plain(data)
            self._changed.notify_all()

    @property
    def log(self):
        return self._log

    def wait_log(self, pattern, timeout=60, after=0):
        """The match object once the log has it behind position `after`."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self._log[after:])
                                   or not self._thread.is_alive() or self.error, timeout)
            found = re.search(pattern, self._log[after:])
        assert found, f"the log has no {pattern!r}: {self.error or self._log}"
        return found

    def finish(self):
        """The result, once the machine has ended by itself or has been given up."""
        self._thread.join()
        if self.error:
            raise self.error
        return self.result

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        if self._session:
            self._session.stop()
        self._thread.join()
        if self.error:
            raise self.error
