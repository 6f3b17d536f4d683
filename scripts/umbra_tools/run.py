"""scripts/run: boot Umbra with guests in an emulator."""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import sys
import tempfile
import termios
import time

from . import emulator, linux, memnodes, report, results
from .base import (BUILD, EXIT_HYPERVISOR, EXIT_TIMEOUT, EXIT_VM_FAULT, ROOT, Failure, build, main,
                   say)
from .config import Config
from .disk import image_for

# Bochs 2.7 and 3.0 deliver a pending virtual interrupt to a guest with IF = 0 when an interrupt for
# the host arrives: a kernel gets it in the middle of its entry code and is lost.
BOCHS_HIDE = "vid"
DEFAULT_CONFIG = ROOT / "guest" / "default.conf"
NODE_CONFIG = "[umbra]\nrole = memory-node\nnetwork = 10.77.0.2/24\n"


def mebibytes(text):
    """A size as the configuration writes it; a bare number is MiB, as in QEMU."""
    m = re.fullmatch(r"(\d+)\s*([KMGkmg]?)B?", text.strip())
    if not m:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: use 512, 512M or 2G")
    return max(1, int(m[1]) * {"K": 1, "M": 1024, "": 1024, "G": 1 << 20}[m[2].upper()] // 1024)


def wire(text):
    m = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
    if not m or not all(0 < int(port) < 65536 for port in m.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not LOCAL:REMOTE, two UDP ports")
    return emulator.Nic(port=int(m[1]), remote=int(m[2]))


def count(least, most):
    def check(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)
    return check


def parse(arguments):
    p = argparse.ArgumentParser(
        prog="scripts/run",
        description="Boot Umbra in an emulator. Without arguments: install what is missing, build, "
                    "fetch Debian's kernel, and boot it as a guest to a shell, with a small second "
                    "guest beside it. Where standard input is no terminal, the guest runs a few "
                    "commands instead and powers off. Ctrl-] ends the emulator at once.",
        epilog="Exit status: the guest's ((v<<1)|1 for v written to port 0xf4, 0 for power-off); "
               "71 if Umbra had to end it; 70 if the hypervisor failed or never started; 124 on "
               "time-out.")
    p.add_argument("--emulator", choices=("qemu", "bochs", "bochs3"),
                   help="default: qemu with KVM where this machine has nested VT-x, else bochs")
    p.add_argument("--cpu", metavar="MODEL", default="", help="CPU model, by the emulator's name")
    p.add_argument("--cpus", metavar="N", type=count(1, 64), help="CPUs of the machine")
    p.add_argument("--memory", metavar="M", type=mebibytes, help="memory of the machine")
    p.add_argument("--config", metavar="FILE",
                   help="boot this umbra.conf; its paths are of this machine, relative to FILE")
    p.add_argument("--memory-node", action="store_true",
                   help="boot the machine as a memory node, 10.77.0.2; QEMU, no VT-x needed")
    p.add_argument("--wire", metavar="LOCAL:REMOTE", type=wire,
                   help="the NIC's wire: UDP ports of 127.0.0.1 where it receives and sends to; "
                        "default: to memory nodes that are started for VMs with `remote`")
    p.add_argument("--guests", metavar="NAME[,NAME]|all",
                   help="boot these test kernels of guest/default.conf")
    debian = p.add_argument_group("Debian's kernel (the default)")
    debian.add_argument("--linux", choices=linux.FLAVOURS,
                        help=f"which of Debian's kernels; default {linux.DEFAULT}")
    debian.add_argument("--bzimage", action="store_true",
                        help="start the packed kernel by Linux's boot protocol: some minutes slower")
    debian.add_argument("--commands", metavar="S",
                        help="a shell script for the guest; it powers off when that ends")
    debian.add_argument("--alone", action="store_true", help="without the second guest")
    guest = p.add_argument_group("one guest, as with qemu-system-x86_64 -kernel")
    guest.add_argument("--kernel", metavar="F", help="Multiboot or PVH kernel")
    guest.add_argument("--initrd", metavar="F[,F...]", help="modules: FILE [ARGUMENTS], by commas")
    guest.add_argument("--append", metavar="S",
                       help="command line; for Debian's kernel, more of it")
    guest.add_argument("--vcpus", metavar="N", type=count(1, 16),
                       help="default 1; for Debian's kernel as many as the machine has CPUs")
    guest.add_argument("--guest-mem", metavar="M", type=mebibytes,
                       help="default 128M; for Debian's kernel 256M")
    p.add_argument("--hide", metavar="FEATURES",
                   help="optional CPU features to pretend absent (include/umbra/features.h)")
    p.add_argument("--serial", metavar="FILE", help="guests' serial output to FILE, no input")
    p.add_argument("--log", metavar="FILE", help="Umbra's own log to FILE (- is standard error)")
    p.add_argument("--report", metavar="FILE.html",
                   help="write a page on the guests' exits: how many, when, from where, their cost")
    p.add_argument("--timeout", metavar="S", type=float, help="end after S seconds in the emulator")
    p.add_argument("--firmware", action="store_true", help="show the firmware's output too")
    p.add_argument("--disk", metavar="FILE",
                   help="the machine's disk: made if it is not there, and kept, so that memory that "
                        "is saved on it (`pmem = ram SIZE saved`) is there at the next run; kernels "
                        "and configuration on it are replaced by this run's")
    p.add_argument("--no-build", action="store_true", help="boot what is built already")
    p.add_argument("--keep", metavar="DIR", help="keep image, configuration and emulator files there")
    options = p.parse_args(arguments)
    if options.kernel and options.config:
        p.error("--config and --kernel exclude each other")
    if options.guests and (options.config or options.kernel):
        p.error("--guests is for the test kernels, without --config and --kernel")
    if options.initrd is not None and not options.kernel:
        p.error("--initrd needs --kernel")
    if options.memory_node and (options.config or options.kernel or options.guests):
        p.error("--memory-node runs no guests")
    if options.memory_node:
        options.emulator = options.emulator or "qemu"
        options.log = options.log or "-"  # it says nothing elsewhere
    other = next((name for name in ("kernel", "config", "guests", "memory_node")
                  if getattr(options, name)), None)
    what = other and other.replace("_", "-")
    for name in ("linux", "bzimage", "commands", "alone"):
        if getattr(options, name) and other:
            p.error(f"--{name} is for Debian's kernel, without --{what}")
    for name in ("append", "vcpus", "guest_mem"):
        if getattr(options, name) is not None and other in ("config", "guests", "memory_node"):
            p.error(f"--{name.replace('_', '-')} is for one guest, without --{what}")
    if not other:
        options.linux = options.linux or linux.DEFAULT
        options.cpus = options.cpus or min(options.vcpus or 2, 4)
        options.vcpus = options.vcpus or options.cpus
        if options.commands is None and (options.serial or not os.isatty(0)):
            options.commands = linux.TOUR
    return options


def configuration(options):
    """The Config to boot, with paths of this machine."""
    if options.kernel:
        config = Config(name="--kernel or --initrd", folder=pathlib.Path.cwd())
        config.set("umbra", "log_level", "info")
        config.set("vm guest", "kernel", options.kernel)
        config.set("vm guest", "memory", f"{options.guest_mem or 128}M")
        config.set("vm guest", "vcpus", options.vcpus or 1)
        if options.initrd:
            config.set("vm guest", "modules", options.initrd)
        if options.append:
            config.set("vm guest", "cmdline", options.append)
    elif options.linux:
        config = linux.configuration(options.linux, vcpus=options.vcpus, alone=options.alone,
                                     memory=options.guest_mem or 256, append=options.append,
                                     bzimage=options.bzimage, session=options.commands)
    elif options.memory_node:
        config = Config(NODE_CONFIG, name="--memory-node")
    else:
        config = Config.load(options.config or DEFAULT_CONFIG)
    if options.guests and options.guests != "all":
        wanted = options.guests.split(",")
        if unknown := [name for name in wanted if name not in config.vms()]:
            raise Failure(f"no test kernel {', '.join(unknown)}; there are "
                          + ", ".join(config.vms()))
        for name in config.vms():
            if name not in wanted:
                config.remove(f"vm {name}")
    return config


def for_emulator(config, emulator_name, hide=None):
    """Set what the scripts rely on: consoles on COM1, the log on COM2, power-off at the end."""
    config.set("umbra", "console", "com1")
    config.set("umbra", "log", "com2")
    config.set("umbra", "poweroff", "qemu" if emulator_name == "qemu" else "bochs")
    if hide:
        old = config.get("umbra", "hide", "")
        config.set("umbra", "hide", ", ".join(filter(None, [old, hide])))
    return config


def vm_size(config, vm, key, default):
    """MiB that a key of a VM names."""
    text = config.get(f"vm {vm}", key, default)
    with contextlib.suppress(argparse.ArgumentTypeError, ValueError):
        return mebibytes(text) if text[-1:].upper() in "KMG" else int(text, 0) >> 20
    return 0


def needed_memory(config):
    """MiB for a machine that holds Umbra and the guests, those that run at the same time."""
    sizes = [0]
    for vm in config.vms():
        sizes.append((config.disk_bytes(vm) + config.pmem_bytes(vm)) >> 20)
        whole = vm_size(config, vm, "memory", "64M")
        if config.get(f"vm {vm}", "remote"):  # what it has in frames, and what knows of the rest
            sizes[-1] += vm_size(config, vm, "local", f"{whole // 2}M") + whole // 32
        else:
            sizes[-1] += whole
    sequence = config.get("umbra", "order") == "sequence"
    return max(1024, (max(sizes) if sequence else sum(sizes)) + 512)


def needed_cpus(config):
    counts = [config.get(f"vm {vm}", "vcpus", "1") for vm in config.vms()]
    return min(4, max([int(c) for c in counts if c.isdecimal()], default=1))


@contextlib.contextmanager
def keyboard():
    """The descriptor to read keys from, or None; a terminal is set to hand over every key at once,
    those that mean something to it (Ctrl-C) too."""
    try:
        os.fstat(0)
    except OSError:
        yield None
        return
    if not os.isatty(0):
        yield 0
        return
    if os.tcgetpgrp(0) != os.getpgrp():  # in the background: reading would stop us
        yield None
        return
    old = termios.tcgetattr(0)
    new = termios.tcgetattr(0)
    new[0] &= ~(termios.ICRNL | termios.IXON)
    new[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(0, termios.TCSADRAIN, new)
    try:
        yield 0
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, old)


class Console:
    """Passes the guests' output on, without what firmware and loader said before."""

    def __init__(self, descriptor, show_all):
        self.descriptor, self.show, self.held = descriptor, show_all, b""
        self.before = None  # called with what is shown next

    def __call__(self, data, umbra_runs):
        if not self.show:
            self.held += data
            if not umbra_runs:
                return
            self.show = True
            # Firmware, loader and the first guest may share a piece.
            lines = self.held.split(b"\n")
            theirs = [i for i, line in enumerate(lines)
                      if b"umbra-loader:" in line or b"BdsDxe:" in line]
            data = b"\n".join(lines[theirs[-1] + 1:]) if theirs else data
        if data and self.before:
            self.before(data)
        while data:
            data = data[os.write(self.descriptor, data):]


class LogLines:
    """The log on standard error, beside the console: whole lines, between those of the console.
    Only a console that stays within a line (a prompt) is interrupted, at a line of its own."""

    QUIET = 0.5  # seconds

    def __init__(self):
        self.held, self.within, self.since = b"", False, 0.0

    def __call__(self, data):
        self.held += data

    def console(self, data):
        """`data` is about to be shown."""
        if not self.within:
            self._show()
        self.within, self.since = not data.endswith(b"\n"), time.monotonic()

    def on_time(self, _seconds=None):
        if self.within and b"\n" in self.held and time.monotonic() - self.since > self.QUIET:
            self.held, self.within = b"\n" + self.held, False
        if not self.within:
            self._show()

    def end(self):
        self.held = b"\n" * self.within + self.held
        self._show(len(self.held))

    def _show(self, end=None):
        end = self.held.rfind(b"\n") + 1 if end is None else end
        lines, self.held = self.held[:end], self.held[end:]
        sys.stderr.write(emulator.plain(lines))
        sys.stderr.flush()


def explain(session, config, log_shown):
    """Say on standard error why there is no result."""
    for line in emulator.loader_messages(session.console):
        if session.reason == "firmware" or "error:" in line:
            print(config.as_written(line), file=sys.stderr)
    if session.reason == "firmware":
        say("Umbra did not start: the loader gave up, see above")
        return
    if session.log and not log_shown:
        lines = emulator.plain(bytes(session.log)).rstrip().split("\n")
        print("".join(f"  {line}\n" for line in lines[-40:]), end="", file=sys.stderr)
    if session.reason == "end":
        say("the hypervisor failed, see its log above" if not log_shown else "the hypervisor failed")
    elif session.reason == "timeout":
        say("time is up")
    elif session.reason == "silent":
        say("Umbra did not start: no word from it")
    else:
        say(f"the emulator ended (status {session.returncode}) before Umbra did; its last words:")
        print(session.emulator_messages(), end="", file=sys.stderr)


def warnings(session):
    """What the log says about VMs that Umbra had to end, for those who did not ask for the log."""
    lines = emulator.plain(bytes(session.log)).split("\n")
    return "".join(f"  {line}\n" for line in lines if re.match(r"\[[^]]*\] warning: ", line))


class Progress:
    """Says on standard error where a boot is, until the guests are heard."""

    def __init__(self, session, linux_boots):
        self.session, self.linux = session, linux_boots
        self.terminal = os.isatty(2)
        self.stage, self.line, self.shown, self.done = None, "", b"", False

    def _stage(self):
        if self.session.log:
            return "Umbra runs; Linux boots" if self.linux else "Umbra runs"
        if b"umbra-loader:" in self.session.console:
            return "the loader reads the guests' files"
        return "the firmware starts"

    def __call__(self, seconds):
        if self.done or emulator.plain(self.shown)[-1:] not in ("", "\n"):  # within a line
            return
        stage = self._stage()
        if self.terminal:
            line = f"run: {seconds:3.0f} s: {stage} "
            if line != self.line:
                os.write(2, f"\r\033[K{line}".encode())
        elif stage != self.stage:
            say(f"{seconds:.0f} s: {stage}")
        self.stage, self.line = stage, line if self.terminal else ""

    def output(self, data):
        """Something is about to be shown. What Umbra says of its consoles is not the guests' word."""
        self.shown += data
        lines = emulator.plain(self.shown).split("\n")
        if any(line.strip() and not line.startswith("[umbra:"[:len(line)]) for line in lines):
            self.end()
        else:
            self._clear()

    def _clear(self):
        if not self.done and self.terminal and self.line:
            os.write(2, b"\r\033[K")
            self.line = ""

    def end(self):
        self._clear()
        self.done = True


def expect(machine, config):
    """What the user should know while waiting."""
    say(f"{machine.emulator}, {machine.cpus} CPU(s), {machine.memory} MiB"
        + (f", {machine.cpu}" if machine.cpu else ""))
    if machine.emulator == "qemu":
        return
    say("the emulator counts every instruction: some 20 s until Umbra runs"
        + (", and a minute until Linux does" if "linux" in config.vms() else ""))


def boot(options, config, work):
    """Boot the prepared configuration; returns the exit status."""
    tests = options.guests is not None
    machine = emulator.Machine(
        options.emulator or emulator.choose_emulator(), options.cpu,
        options.cpus or needed_cpus(config), options.memory or needed_memory(config))
    # Test kernels see every feature that there is.
    hide = options.hide if tests else ", ".join(filter(None, [BOCHS_HIDE, options.hide]))
    for_emulator(config, machine.emulator, hide if machine.emulator != "qemu" else options.hide)
    nodes = memnodes.MemoryNodes(config, lambda vm: vm_size(config, vm, "memory", "64M"))
    if options.wire:
        nodes.nodes = []
    names = config.vms()
    page = report.Wanted(options.report, config) if options.report else None
    image = pathlib.Path(options.disk).absolute() if options.disk else work / "umbra.img"
    machine.keep_disk = bool(options.disk)
    image_for(config, image, keep=image if options.disk and image.exists() else None)
    if options.keep:
        (work / "umbra.conf").write_text(config.text())

    with contextlib.ExitStack() as stack:
        stack.enter_context(nodes)
        machine.nic = options.wire or nodes.nic or (emulator.Nic() if options.memory_node else None)
        if nodes:
            machine.ips = memnodes.IPS
            say(f"memory nodes: {nodes.describe()}")
        elif machine.nic:
            say(f"the NIC's wire is UDP 127.0.0.1:{machine.nic.port}; it sends to port "
                f"{machine.nic.remote}")
        descriptor = 1
        if options.serial:
            descriptor = stack.enter_context(open(options.serial, "wb", buffering=0)).fileno()
        on_log = lines = None
        if options.log == "-":
            on_log = lines = LogLines()
            stack.callback(lines.end)
        elif options.log:
            on_log = stack.enter_context(open(options.log, "wb", buffering=0)).write
        if page:
            on_log = report.Filter(on_log)
        # With a silent log nothing tells where the firmware's output ends.
        silent_log = config.get("umbra", "log_level") in ("error", "warn")
        console = Console(descriptor, options.firmware or silent_log)
        session = emulator.Session(machine, image, work, console, on_log)
        session.silent_log = silent_log
        if lines:
            session.on_time, console.before = lines.on_time, lines.console
        if options.linux:
            session.leader = "linux"
        expect(machine, config)
        if not options.firmware and options.log != "-" and not silent_log:
            session.on_time = Progress(session, options.linux)
            console.before = session.on_time.output
            stack.callback(session.on_time.end)
        keys = None if options.serial else stack.enter_context(keyboard())
        if keys is not None and os.isatty(keys):
            say("Ctrl-] ends the emulator at once; other keys are the guest's")
        try:
            session.run(options.timeout, keys)
        finally:
            if page:
                page.write(session, config, machine)

    if tests or len(names) > 1 and not options.linux:
        found = results.vm_results(names, session.console, session.log)
        print("\n" + results.summary(found), flush=True)
        if tests and session.reason == "end" and session.status in results.PASS_STATUS:
            return 1 if any(r.problem() for r in found) else 0
    if session.reason != "end" or session.status == EXIT_HYPERVISOR:
        explain(session, config, options.log is not None)
    elif session.status == EXIT_VM_FAULT and options.log is None:
        print(warnings(session), end="", file=sys.stderr)
    if session.reason == "timeout":
        return EXIT_TIMEOUT
    if session.reason != "end":
        return EXIT_HYPERVISOR
    if not tests and session.status not in results.PASS_STATUS:
        say(f"guest status {session.status}")
    elif options.linux:
        say("Linux has powered off")
    return session.status


def run(arguments):
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in ("serial", "log", "report", "disk"):
        path = getattr(options, name)
        if path and path != "-" and not pathlib.Path(path).absolute().parent.is_dir():
            raise Failure(f"--{name} {path}: no such folder")
    if not options.linux:
        config = configuration(options)  # mistakes in it are told before a long build
    if not options.no_build:
        build("all")
    if options.linux:
        config = configuration(options)
    if options.keep:
        work = pathlib.Path(options.keep).absolute()
        work.mkdir(parents=True, exist_ok=True)
        return boot(options, config, work)
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="run.") as folder:
        return boot(options, config, pathlib.Path(folder))


if __name__ == "__main__":
    main(run)
