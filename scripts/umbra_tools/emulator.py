"""Start an emulator on a disk image, with both serial ports and a time limit.

COM1 carries the guests' consoles (and before that the firmware's), COM2 Umbra's own log. Each is a
socket that the emulator connects to, so input works the same way in every emulator.
"""

import dataclasses
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import time

from .base import BOCHS3, ROOT, Failure, run

OVMF_COMBINED = ["/usr/share/ovmf/OVMF.fd"]
OVMF_SPLIT = [(f"/usr/share/OVMF/OVMF_CODE{size}.fd", f"/usr/share/OVMF/OVMF_VARS{size}.fd")
              for size in ("_4M", "")]
BOCHS_CET_MODELS = ("tigerlake", "sapphire_rapids", "arrow_lake")
DEFAULT_BOCHS_CPU = "corei7_skylake_x"
BOCHS_HOST_MIB = 2048  # of guest memory that Bochs keeps in its own; the rest is in a file
# OVMF's console is on both ports; Umbra's log begins with its first line.
LOG_START = re.compile(rb"\[ *\d+\.\d{6} cpu\d+\] |^umbra: ", re.M)
END = re.compile(rb"umbra: end (\d+)\b[^\n]*\n")
ESCAPE = b"\x1d"  # Ctrl-] on a terminal: leave at once
LOADER_GAVE_UP = b"umbra-loader: returning to firmware"
START_LIMIT = 300  # seconds of silence in which firmware and loader must reach Umbra


@dataclasses.dataclass
class Nic:
    """A NIC whose wire is a pair of UDP ports on 127.0.0.1, one Ethernet frame in a datagram: the
    emulator receives at `port` and sends to `remote`, which is where a peer binds."""
    port: int = 0  # 0: a free pair is looked for
    remote: int = 0  # 0: the port after it, which is all that Bochs can do
    model: str = "e1000"  # QEMU: also e1000e; Bochs has the former only
    mac: str = "52:54:00:75:6d:01"

    def __post_init__(self):
        self.port = self.port or free_port_pair()
        self.remote = self.remote or self.port + 1

    @property
    def peer(self):
        """(port to bind, port to send to) for the other end."""
        return self.remote, self.port


@dataclasses.dataclass
class Machine:
    """What to emulate. emulator: `qemu`, `bochs` (the host's) or `bochs3`."""
    emulator: str
    cpu: str = ""
    cpus: int = 1
    memory: int = 1024  # MiB
    usb: bool = False  # QEMU: the image is a USB stick
    keep_disk: bool = False  # what is written to the image stays
    nic: Nic | None = None
    ips: int = 50000000  # Bochs: instructions that it calls a second; lower makes a network faster
    commands: str = "c\n"  # Bochs: for its debugger
    qmp: int = 0  # QEMU: it connects its QMP monitor to this TCP port


def free_port_pair():
    """A UDP port that nobody uses, nor the one after it; below those that the kernel chooses."""
    while True:
        port = random.SystemRandom().randrange(10000, 30000, 2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def host_has_vmx():
    """Whether QEMU/KVM on this machine can offer VT-x to its guest."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        return False
    if not flags or "vmx" not in flags[1].split() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        nested = pathlib.Path("/sys/module/kvm_intel/parameters/nested").read_text().strip()
    except OSError:
        return False
    return nested in ("1", "Y")


def bochs_help(bochs):
    """The text that names the version and the CPU models; empty if Bochs does not start."""
    try:
        done = subprocess.run([str(bochs), "--help", "cpu"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=30, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def host_bochs_version(bochs="bochs"):
    """`2.7`, `3.0`, ... or an empty string."""
    found = re.search(r"Bochs x86 Emulator (\d+\.\d+)", bochs_help(bochs))
    return found[1] if found else ""


def bochs_program(emulator):
    """The command for `bochs` or `bochs3`."""
    if emulator == "bochs3" and not host_bochs_version().startswith("3."):
        if not (BOCHS3 / "bochs").exists():
            done = subprocess.run([ROOT / "scripts/get-bochs3"])
            if done.returncode:
                raise Failure("Bochs 3.0 could not be fetched")
        return str(BOCHS3 / "bochs")
    if not shutil.which("bochs"):
        raise Failure("bochs is not installed: run scripts/setup")
    return "bochs"


def choose_emulator():
    return "qemu" if host_has_vmx() else "bochs"


def _first(paths, what):
    for path in paths:
        if all(pathlib.Path(p).exists() for p in ([path] if isinstance(path, str) else path)):
            return path
    raise Failure(f"{what} not found: run scripts/setup")


def _bochs_command(machine, image, work, ports):
    program = bochs_program(machine.emulator)
    model = machine.cpu or DEFAULT_BOCHS_CPU
    known = bochs_help(program)
    if not re.search(rf"^{re.escape(model)}$", known, re.M):
        models = re.search(r"Supported CPU models:\s*(.*?)\n\s*\n", known, re.S)
        raise Failure(f"{program} has no CPU model {model}; it has: "
                      + (" ".join(models[1].split()) if models else "?"))
    # Bochs 3.0 panics where OVMF writes a read-only page with CR0.WP clear on a model with CET.
    without = ""
    if model in BOCHS_CET_MODELS and re.search(r"Bochs x86 Emulator 3\.0", known):
        without = ", exclude_features=\"cet\""
    slot, card = "", ""
    if nic := machine.nic:
        if nic.model != "e1000":
            raise Failure(f"{program} has no NIC {nic.model}, only e1000")
        if nic.remote != nic.port + 1:
            raise Failure(f"{program}'s NIC sends to the UDP port after the one where it receives: "
                          f"{nic.port}:{nic.port + 1} would do")
        slot = ", slot2=e1000"
        card = f"e1000: enabled=1, mac={nic.mac}, ethmod=socket, ethdev={nic.port}\n"
    (work / "bochsrc").write_text(f"""\
config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: guest={machine.memory}, host={min(machine.memory, BOCHS_HOST_MIB)}
romimage: file={_first(OVMF_COMBINED, "UEFI firmware OVMF.fd")}
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model={model}, count={machine.cpus}, ips={machine.ips}, reset_on_triple_fault=0{without}
pci: enabled=1, chipset=i440fx, slot1=pcivga{slot}
{card}ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path={image}, mode={"flat" if machine.keep_disk else "volatile"}
com1: enabled=1, mode=socket-client, dev=127.0.0.1:{ports[0]}
com2: enabled=1, mode=socket-client, dev=127.0.0.1:{ports[1]}
boot: disk
clock: sync=none
log: {work}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
speaker: enabled=0
port_e9_hack: enabled=1
""")
    (work / "bochs.rc").write_text(machine.commands)
    command = [program, "-q", "-f", str(work / "bochsrc"), "-rc", str(work / "bochs.rc")]
    # With several CPUs Bochs 3.0's fast loop does not commit RIP after an exception: a VM exit before
    # the handler's first instruction saves the RIP before the exception. The debugger's loop does.
    if machine.cpus > 1 and re.search(r"Bochs x86 Emulator 3\.0", known):
        command.append("-debugger")
    return command


def _qemu_command(machine, image, work, ports):
    code, variables = _first(OVMF_SPLIT, "UEFI firmware OVMF_CODE.fd and OVMF_VARS.fd")
    shutil.copyfile(variables, work / "vars.fd")
    kvm = host_has_vmx()
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-vga", "std",
               "-no-reboot", "-machine", "q35,accel=kvm" if kvm else "q35,accel=tcg",
               "-cpu", machine.cpu or ("host" if kvm else "max"),
               "-smp", str(machine.cpus), "-m", str(machine.memory),
               "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}",
               "-drive", f"if=pflash,format=raw,unit=1,file={work}/vars.fd",
               "-drive", f"if=none,id=disk,format=raw,"
               f"snapshot={'off' if machine.keep_disk else 'on'},file={image}",
               "-device", "isa-debug-exit,iobase=0x501,iosize=4"]
    if machine.usb:
        command += ["-device", "qemu-xhci", "-device", "usb-storage,drive=disk"]
    elif machine.keep_disk:  # q35's own controller is AHCI, which Umbra does not drive
        command += ["-device", "piix4-ide,id=pata", "-device", "ide-hd,drive=disk,bus=pata.0"]
    else:
        command += ["-device", "ide-hd,drive=disk,bus=ide.0"]
    if nic := machine.nic:
        command += ["-netdev", f"dgram,id=net0,local.type=inet,local.host=127.0.0.1,"
                    f"local.port={nic.port},remote.type=inet,remote.host=127.0.0.1,"
                    f"remote.port={nic.remote}",
                    "-device", f"{nic.model},id=nic0,netdev=net0,mac={nic.mac},romfile="]
    if machine.qmp:
        command += ["-qmp", f"tcp:127.0.0.1:{machine.qmp}"]
    for number, port in enumerate(ports, 1):
        command += ["-chardev", f"socket,id=com{number},host=127.0.0.1,port={port}",
                    "-serial", f"chardev:com{number}"]
    return command


class Session:
    """One run of an emulator. Afterwards: `console` and `log` (bytes of COM1 and COM2), `reason`
    (`end`, `firmware`, `died`, `timeout`, `silent`, `stopped`), `status` (Umbra's, where reason is
    `end`)."""

    def __init__(self, machine, image, work, on_console=None, on_log=None, on_time=None):
        self.machine, self.work = machine, pathlib.Path(work)
        self.image = pathlib.Path(image).absolute()
        self.on_console, self.on_log = on_console, on_log
        self.on_time = on_time  # called often, with the seconds since the start
        self.leader = None  # name of a VM: when it ends, that is the end, with its status
        self.console, self.log = bytearray(), bytearray()
        self._before_log = bytearray()
        self.reason, self.status, self.returncode = None, None, None
        self.silent_log = False  # set to True if the log may stay empty while Umbra runs
        self._pending = bytearray()  # input for the guest, not sent yet
        self._stop = False

    def stop(self):
        """End the run soon, from any thread; the reason will be `stopped`."""
        self._stop = True

    def run(self, timeout=None, keyboard=None):
        """Run until Umbra ends, the loader gives up, the emulator dies, or `timeout` seconds.
        keyboard: a file descriptor whose bytes go to the guest once Umbra runs."""
        servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [server.getsockname()[1] for server in servers]
        build = _qemu_command if self.machine.emulator == "qemu" else _bochs_command
        command = build(self.machine, self.image, self.work, ports)
        # Should this script be killed, the emulator goes with it.
        command = ["setpriv", "--pdeathsig=KILL", *command]
        with open(self.work / "emulator.out", "wb") as output:
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                           stderr=subprocess.STDOUT, start_new_session=True)
            except FileNotFoundError as missing:
                raise Failure(f"{missing.filename} is not installed: run scripts/setup") from None
        try:
            self._loop(process, servers, timeout, keyboard)
        finally:
            for server in servers:
                server.close()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            self.returncode = process.wait()
            if self.machine.keep_disk:  # a Bochs that is killed leaves its mark
                pathlib.Path(f"{self.image}.lock").unlink(missing_ok=True)

    def _loop(self, process, servers, timeout, keyboard):
        start = time.monotonic()
        ports = [None, None]  # connections: COM1, COM2
        finish = None  # when to stop waiting for the emulator to end by itself
        next_input = 0.0
        while True:
            now = time.monotonic()
            alive = process.poll() is None
            if self.on_time:
                self.on_time(now - start)
            waiting = [s for s, port in zip(servers, ports) if port is None]
            waiting += [port for port in ports if port]
            if keyboard is not None and (self.log or self.silent_log) and len(self._pending) < 256:
                waiting.append(keyboard)
            ready = select.select(waiting, [], [], 0.05 if alive else 0)[0]
            for number, server in enumerate(servers):
                if server in ready and ports[number] is None:
                    ports[number] = server.accept()[0]
            if keyboard in ready:
                data = os.read(keyboard, 256)
                if ESCAPE in data and os.isatty(keyboard):
                    raise KeyboardInterrupt
                self._pending += data
                keyboard = keyboard if data else None
            # COM2 after COM1: whoever gets console bytes can tell whether Umbra was running.
            got = [self._read(ports, number) if ports[number] in ready else b"" for number in (0, 1)]
            if got[0] and not got[1] and ports[1]:
                got[1] = self._read(ports, 1)
            self._take(*got)
            if self._pending and ports[0] and now >= next_input:
                # A real UART's pace: 2.7 drops what arrives while its receive FIFO is full.
                ports[0].send(self._pending[:8])
                del self._pending[:8]
                next_input = now + 0.02
            if finish is None and self._judge():
                finish = now + (5 if self.reason == "end" else 0.5)
            if not alive and not any(got):
                self._died()
                return
            if finish is not None and now > finish:
                return
            if timeout is not None and now - start > timeout:
                self.reason = self.reason or "timeout"
                return
            if self._stop:
                self.reason = self.reason or "stopped"
                return
            if not self.log and not self.silent_log and now - start > START_LIMIT:
                self.reason = self.reason or "silent"
                return

    @staticmethod
    def _read(ports, number):
        """What has arrived at a port, at once."""
        try:
            data = ports[number].recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except ConnectionError:
            data = b""
        if not data:
            ports[number].close()
            ports[number] = False
        return data

    def _take(self, console, log):
        if log and not self.log:
            self._before_log += log
            start = LOG_START.search(self._before_log)
            log = bytes(self._before_log[start.start():]) if start else b""
        if log:
            self.log += log
            if self.on_log:
                self.on_log(log)
        if console:
            self.console += console
            if self.on_console:
                self.on_console(console, bool(self.log))

    def _judge(self):
        if found := END.search(self.log):
            self.reason, self.status = "end", int(found[1])
        elif self.leader and (found := re.search(
                rb"umbra: vm %b ended: (\d+)\b[^\n]*\n" % re.escape(self.leader.encode()), self.log)):
            self.reason, self.status = "end", int(found[1])
        elif not self.log and LOADER_GAVE_UP in self.console:
            self.reason = "firmware"
        return self.reason is not None

    def _died(self):
        """The emulator is gone. It may have dropped the very last characters."""
        if found := re.search(rb"umbra: end (\d+)", self.log):
            self.reason, self.status = "end", int(found[1])
        else:
            self.reason = self.reason or "died"

    def emulator_messages(self):
        """The last lines that the emulator itself wrote, for reports."""
        text = ""
        for name in ("emulator.out", "bochs.log"):
            path = self.work / name
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()
                text += "".join(f"  {line}\n" for line in lines[-8:])
        return text


def plain(data):
    """Serial output as text: terminal control sequences and carriage returns removed."""
    text = data.decode(errors="replace")
    text = re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]", "", text)
    return text.replace("\r", "").replace("\0", "")


def loader_messages(console):
    """The loader's lines on the firmware console."""
    return [line.strip() for line in plain(bytes(console)).split("\n") if "umbra-loader:" in line]
