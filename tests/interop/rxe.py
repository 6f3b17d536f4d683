"""A Linux with rdma_rxe in QEMU: Debian's kernel and RDMA programs, which nobody here wrote.

    with Relay(2) as relay, Linux(relay.port[1]) as linux:
        linux.start("rping -s -a 10.77.0.1")
        ...
        status, text = linux.wait()

Emulated (TCG), so it needs no privileges and no InfiniBand in the host's kernel. Its interface is
eth0 at 10.77.0.1 with the RDMA device rxe0. It obeys commands on its serial console.
"""

import dataclasses
import json
import pathlib
import queue
import shutil
import subprocess
import tempfile
import threading
import time

from umbra_tools import linux as debian
from umbra_tools.base import BUILD, Failure, locked, run, say

ADDRESS = "10.77.0.1"
MODULES = ("virtio_pci", "virtio_net", "crc32_generic", "rdma_rxe", "ib_uverbs", "rdma_ucm")
PROGRAMS = (("rdmacm-utils", "usr/bin/rping"), ("perftest", "usr/bin/ib_read_bw"),
            ("perftest", "usr/bin/ib_write_bw"), ("iproute2", "bin/rdma"))
PROVIDER = "usr/lib/x86_64-linux-gnu/libibverbs"

# Commands come as lines, one at a time; a line `@@ STATUS` ends the answer to each. `start` runs
# one in the background, `wait` ends with its status and says what it said, `kill` ends it.
SESSION = r"""
stty -echo -onlcr
dmesg -n 1
for module in %(modules)s; do modprobe -q $module; done
start() { sh -c "$1" >/tmp/out 2>&1 & job=$!; }
stop() { kill $job; }
finish() { wait $job; status=$?; cat /tmp/out; return $status; }
ip addr add %(address)s/24 dev eth0
ip link set eth0 mtu %(mtu)d up
/bin/rdma link add rxe0 type rxe netdev eth0
echo "@@ $?"
while read -r line; do
	eval "$line" 2>&1
	echo "@@ $?"
done
"""


def _host_program(path):
    """A program of this machine with its own libraries, as the guest's are Debian 12's."""
    files = {f"host/{path.name}": path}
    for line in run("ldd", path).splitlines():
        words = line.replace("=>", " ").split()
        file = next((word for word in words if word.startswith("/")), None)
        if file:
            name = "ld.so" if "ld-linux" in file else words[0]
            files[f"host/lib/{name}"] = pathlib.Path(file)
    return files


def kernel(name, modules):
    """Debian's amd64 kernel with other modules (the cloud kernel has no rdma_rxe and no e1000); the
    name is that of their place in the cache."""
    plain = debian.kernel("amd64")
    folder = debian.CACHE / f"{plain.release}-{name}"
    with locked(debian.CACHE):
        stamp = folder / ".stamp"
        made = json.dumps([plain.version, modules])
        if not stamp.exists() or stamp.read_text() != made:
            say(f"unpacking the kernel's modules ({name})")
            with tempfile.TemporaryDirectory(dir=debian.CACHE, prefix="unpack.") as scratch:
                root = pathlib.Path(scratch) / "root"
                deb = debian.Packages().deb(f"linux-image-{plain.release}")
                debian.unpack(deb, root)
                new = pathlib.Path(scratch) / "new"
                debian.collect_modules(next(root.glob("**/lib/modules/*")), new / "modules",
                                       modules)
                shutil.copyfile(plain.vmlinux, new / "vmlinux")
                shutil.copyfile(plain.vmlinuz, new / "vmlinuz")
                (new / ".stamp").write_text(made)
                shutil.rmtree(folder, ignore_errors=True)
                new.rename(folder)
    return dataclasses.replace(plain, folder=folder)


def _initramfs(guest, mtu, more):
    files = dict(debian.programs(*PROGRAMS, *more))
    with locked(debian.CACHE):
        providers = debian.Packages().tree("ibverbs-providers")
    # The provider is opened at run time, from a place that is compiled in.
    files[f"{PROVIDER}/librxe-rdmav34.so"] = providers / PROVIDER / "librxe-rdmav34.so"
    files["etc/libibverbs.d/rxe.driver"] = b"driver rxe\n"
    gcc = debian.programs(("libgcc-s1", "lib/x86_64-linux-gnu/libgcc_s.so.1"))
    # What rping opens at its end, for pthread_exit().
    files["lib/libgcc_s.so.1"] = gcc["lib/x86_64-linux-gnu/libgcc_s.so.1"]
    node = _host_program(BUILD / "memnode-verbs")
    for provider in pathlib.Path("/" + PROVIDER).glob("librxe-rdmav*.so"):
        files[f"{PROVIDER}/{provider.name}"] = provider
    session = SESSION % {"modules": " ".join(MODULES), "address": ADDRESS, "mtu": mtu}
    return debian.initramfs(guest, BUILD / f"linux/rxe-{mtu}-{len(more)}.cpio", session=session,
                            files={**files, **node})


class Wire:
    """The other end of an emulated machine's NIC (umbra_tools.emulator.Nic), for Linux()."""

    def __init__(self, nic):
        self.peer = nic.peer

    def netdev(self, name):
        here, there = self.peer
        return (f"dgram,id={name},local.type=inet,local.host=127.0.0.1,local.port={here},"
                f"remote.type=inet,remote.host=127.0.0.1,remote.port={there}")


class Linux:
    """port: has netdev(name), for QEMU. mtu: of the interface; rxe's own follows: 1500 gives 1024,
    4200 and more 4096. more: further (package, program) pairs. memory: MiB."""

    def __init__(self, port, *, mtu=1500, memory=384, more=(), log=None):
        guest = kernel("rdma", MODULES)
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", memory, "-nodefaults",
            "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", guest.vmlinuz,
            "-initrd", _initramfs(guest, mtu, more),
            "-append", "console=ttyS0 quiet mitigations=off cryptomgr.notests",
            "-netdev", port.netdev("n0"),
            "-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,host_mtu={mtu}",
        ]
        self.log = open(log, "w", encoding="utf-8", errors="replace") if log else None
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        status, text = self._answer(120)
        if status:
            raise Failure(f"no rxe0 in the guest: {text}")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        if self.log:
            self.log.close()

    def _read(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").rstrip()
            if self.log:
                self.log.write(line + "\n")
                self.log.flush()
            self.lines.put(line)
        self.lines.put(None)

    def _answer(self, timeout):
        """(status, text) of the command under way."""
        said, end = [], time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise Failure(f"no answer from the guest; it said: {said}") from None
            if line is None:
                raise Failure(f"the guest is gone; it said: {said}")
            if line.startswith("@@ "):
                return int(line[3:]), "\n".join(said)
            said.append(line)

    def run(self, command, timeout=30):
        """(status, what it printed)"""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self._answer(timeout)

    def start(self, command):
        """Run it in the background, one at a time."""
        self.run(f"start '{command}'")

    def wait(self, timeout=30):
        """(status, what it printed) of what was started, when it has ended."""
        return self.run("finish", timeout)

    def stop(self):
        """SIGTERM to what was started."""
        self.run("stop")
        return self.wait()

    def node(self, arguments=""):
        """Start the memory node of tools/memnode/verbs.c."""
        self.start("exec /host/lib/ld.so --library-path /host/lib /host/memnode-verbs "
                   f"--ip {ADDRESS} {arguments}")
        for _ in range(300):
            if "memnode-verbs:" in self.run("cat /tmp/out")[1]:
                return
            time.sleep(0.1)
        raise Failure("the memory node did not start: " + self.run("cat /tmp/out")[1])
