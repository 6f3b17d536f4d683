"""Stock Linux with memory on a memory node: Debian's kernel and programs, whose results are those of
this machine; Debian's memtest86+; and a memory node that is a Linux host's RDMA device."""

import os
import re
import sqlite3
import subprocess
import sys

import pytest

from harness import boot, have_emulator
from test_linux import healthy, parts
from umbra_tools import linux
from umbra_tools.base import BUILD, ROOT, Failure, build, locked
from umbra_tools.config import Config
from umbra_tools.debian import PrivateApt, sha256
from umbra_tools.emulator import Nic
from umbra_tools.memnodes import IPS, Relay
from umbra_tools.run import BOCHS_HIDE

sys.path.append(str(ROOT / "tests/interop"))
from rxe import ADDRESS, Linux, Wire  # noqa: E402

NODE = "10.77.0.11"
MEMORY = 240  # MiB of the Linux VM
# 12 MB of hashing by vector instructions, of which nothing is used.
HOLLOW = {"libIPSec_MB.so.1": "(?:init_mb|alloc_mb|free_mb|imb_)"}
PROGRAMS = (("stress-ng", "bin/stress-ng"), ("sqlite3", "usr/bin/sqlite3"), ("tcc", "usr/bin/tcc"),
            ("memtester", "usr/sbin/memtester"))

SESSION = r"""
echo @@ free; free -m
echo @@ hash; /umbra/hash $HASH 1
echo @@ sort; /umbra/sort $SORT
echo @@ stress
for method in rand-set inc-nybble; do
	stress-ng --seed 1 --metrics-brief --verify --timeout 0 --temp-path /tmp \
		--vm 1 --vm-bytes ${STRESS}M --vm-ops 300 --vm-method $method 2>&1; echo "status $?"
done
echo @@ sqlite; sqlite3 /tmp/db </work.sql
echo @@ compile
ln -s /lib/libc.so.6 /usr/lib/x86_64-linux-gnu/libc.so
ln -s /lib64/ld-linux-x86-64.so.2 /usr/lib/x86_64-linux-gnu/
tcc -o /tmp/program /program.c && /tmp/program; echo "status $?"
echo @@ memtester
MEMTESTER_TEST_MASK=0x3f /usr/sbin/memtester 32M 1 >/tmp/said; echo "status $?"
tr '\b' '\n' </tmp/said | grep -E "ok$|FAIL"
echo @@ dmesg; dmesg -r
echo @@ end
"""

# Rows that differ, an index over all of them, changes at places that lie far apart, joins.
SQL = """
pragma cache_size = 64;
create table t(id integer primary key, a integer, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 30000)
insert into t select i, (i * 7919) % 30011, hex(i * 1103515245 % 2147483647) || 'x' || i from n;
create index t_a on t(a);
create index t_b on t(b);
update t set b = b || 'y' || a where a % 5 = 0;
delete from t where a % 11 = 3;
create table u as select a % 97 as g, count(*) as n, sum(a) as s, min(b) as first from t group by g;
select count(*), sum(a), sum(length(b)), min(b), max(b) from t;
select t.id, t.b, u.n from t join u on u.g = t.a % 97 where t.a % 1009 = 5 order by t.b;
select sum(x.a * y.id % 1013) from t x join t y on y.a = (x.a * 31 + 7) % 30011;
select * from u order by g;
pragma integrity_check;
"""


def source():
    """A C program of many functions, each of which the result depends on."""
    functions = "".join(
        f"static unsigned int f{n}(unsigned int x)\n{{\n"
        f"\tstruct pair p = {{x * {2 * n + 1}u, x ^ {n * 2654435761 % 2**32}u}};\n"
        f"\tfor (int i = 0; i < {n % 7 + 2}; i++)\n"
        f"\t\tp = (struct pair){{p.b + (p.a << {n % 13 + 1}), p.a ^ (p.b >> {n % 11 + 3})}};\n"
        f"\tswitch (p.a % 4) {{\n\tcase 0: return p.b;\n\tcase 1: return p.a - {n};\n"
        f"\tdefault: return p.a / (p.b % 1000 + 1) + {n};\n\t}}\n}}\n\n" for n in range(600))
    table = ", ".join(f"f{n}" for n in range(600))
    return ("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n"
            "struct pair {\n\tunsigned int a, b;\n};\n\n" + functions +
            f"static unsigned int (*const all[])(unsigned int) = {{{table}}};\n\n"
            "int main(void)\n{\n\tunsigned int x = 1;\n\tchar *text = calloc(1, 1 << 16);\n\n"
            "\tfor (int n = 0; n < 200000; n++)\n\t\tx = all[x % 600](x + n);\n"
            "\tfor (int n = 0; n < 600; n++)\n"
            "\t\tsprintf(text + strlen(text), \"%x\", all[n](x));\n"
            "\tfor (char *c = text; *c; c++)\n\t\tx = x * 31 + *c;\n"
            "\tprintf(\"program: %u %zu\\n\", x, strlen(text));\n\treturn 0;\n}\n")


def headers(trees):
    """{path in the guest: file} of what a C compiler needs beside itself."""
    files = {}
    for tree in trees:
        for path in [*tree.glob("usr/include/**/*.h"), *tree.glob("usr/lib/*/crt[1in].o"),
                     *tree.glob("usr/lib/*/tcc/**/*")]:
            if path.is_file() and not re.search(r"/include/(linux|rdma|sound|drm|scsi)/", str(path)):
                files[str(path.relative_to(tree))] = path
    return files


def files(folder):
    """Programs and inputs of SESSION."""
    (folder / "program.c").write_text(source())
    found = linux.programs(*PROGRAMS, hollow=HOLLOW)
    with locked(linux.CACHE):
        packages = linux.Packages()
        found.update(headers([packages.tree(name)
                              for name in ("libc6-dev", "linux-libc-dev", "tcc")]))
    return {**found, "work.sql": SQL.encode(), "program.c": folder / "program.c"}


def queried():
    """What sqlite3 prints, by this machine's SQLite."""
    connection, lines, text = sqlite3.connect(":memory:"), [], ""
    for line in SQL.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            lines += ["|".join(map(str, row)) for row in connection.execute(text)]
            text = ""
    return lines


def compiled(folder):
    subprocess.run(["gcc", "-O1", "-o", folder / "program", folder / "program.c"], check=True)
    return subprocess.run([folder / "program"], capture_output=True, text=True).stdout.strip()


def hashed(mib):
    return subprocess.run([BUILD / "guest/linux/hash", str(mib), "1"], capture_output=True,
                          text=True).stdout.strip()


class Node:
    """build/memnode at the other end of a wire that loses nothing."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.relay = Relay(2).__enter__()
        self.process = subprocess.Popen(
            [BUILD / "memnode", "--udp", self.relay.port[1].udp, "--ip", NODE, "--size",
             str(self.size), "--token", "sesame"], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("memnode: ")
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        self.relay.__exit__(*exception)

    def boot(self, config, vm, local, name, **options):
        if not have_emulator("bochs3"):
            pytest.skip("no such Bochs here")
        config.set("umbra", "network", "10.77.0.1/24")
        for key, value in {"remote": NODE, "remote_token": "sesame", "local": f"{local}M"}.items():
            config.set(f"vm {vm}", key, value)
        return boot(config=config, name=name, emulator_name="bochs3", ips=IPS,
                    nic=Nic(port=self.relay.port[0].host), **options)


@pytest.mark.long
@pytest.mark.parametrize("percent", [25, 50, 100])
def test_workloads(percent, tmp_path):
    """Each uses more memory than is here (of the smaller quotas), and comes to the right result."""
    build("guests", "memnode")
    local = MEMORY * percent // 100
    sizes = {"HASH": 96, "SORT": local + 8 if percent < 100 else 32, "STRESS": 56}
    session = "".join(f"{name}={value}\n" for name, value in sizes.items()) + SESSION
    config = linux.configuration("cloud", vcpus=2, memory=MEMORY, alone=True, session=session,
                                 files=files(tmp_path), name=f"workloads-{percent}")
    with Node(MEMORY + 16) as node:
        result = node.boot(config, "linux", local, f"remote-workloads-{percent}", timeout=2400,
                           hide=(BOCHS_HIDE,))
    lines = result.vms["linux"].tap.lines
    assert result.status == 0 and "@@ end" in lines, \
        result.explain() + "\n" + "\n".join(lines[-40:])
    found = parts(lines)
    assert found["hash"] == [hashed(sizes["HASH"])]
    assert len(found["sort"]) == 1 and found["sort"][0].startswith(f"sort: {sizes['SORT']} MiB")
    stress = "\n".join(found["stress"])
    assert found["stress"].count("status 0") == 2, stress
    assert stress.count("successful run completed") == 2, stress
    assert not re.search(r"fail|error", stress, re.I), stress
    assert len(re.findall(r"\bvm +\d*[1-9]\d* ", stress)) == 2, stress
    assert found["sqlite"] == queried() and found["sqlite"][-1] == "ok"
    assert found["compile"] == [compiled(tmp_path), "status 0"]
    assert found["memtester"][0] == "status 0", found["memtester"]
    assert len(found["memtester"]) == 8 and "FAIL" not in "".join(found["memtester"])
    healthy(found["dmesg"])
    moved = re.search(r"(\d+) pages read, (\d+) written", result.log)
    assert moved and all((int(n) > 20000) == (percent < 100) for n in moved.groups()), moved


def screen(console):
    """What a terminal of 25 lines shows in the end, as far as positions and clearing say."""
    lines, y, x = [[" "] * 80 for _ in range(25)], 0, 0
    console = console.split("\x1b[2J")[-1]
    token = re.compile(r"\x1b\[(?:(\d+;\d+)H|[\d;=]*[A-Za-z])|\x1b|([\r\n])|(.)", re.S)
    for at, control, byte in token.findall(console):
        if at:
            y, x = (int(n) - 1 for n in at.split(";"))
        elif control:
            y, x = (y, 0) if control == "\r" else (y + 1, x)
        elif byte:
            if y < 25 and x < 80:
                lines[y][x] = byte
            x += 1
    return "\n".join("".join(line).rstrip() for line in lines)


def memory_tester(kernel, name, complete, options="", prompt=None, answer=b""):
    """A memory tester with a quarter of its memory here finds no error in its first pass, of whose
    end `complete` on its console tells. `answer` is typed when it has asked `prompt`."""
    build("all", "memnode")
    config = Config(name=name, folder=ROOT)
    for key, value in {"kernel": kernel, "memory": "8M",
                       "cmdline": f"console=ttyS0,115200 {options}"}.items():
        config.set(f"vm {name}", key, value)
    seen, asked, sessions = bytearray(), [], []
    typed, typing = os.pipe()

    def on_console(data, _):
        seen.extend(data)
        if prompt and not asked and prompt in seen:
            asked.append(os.write(typing, answer))
        if re.search(complete + b"|Failing Address", seen[-8192:]):
            sessions[0].stop()

    with Node(24) as node, open(typed, "rb", 0), open(typing, "wb", 0):
        result = node.boot(config, name, 2, f"remote-{name}", timeout=5400, keys=typed,
                           on_console=on_console, ready=sessions.append)
        frames = node.relay.count["roce"]
    shown = screen(seen.decode("latin1"))
    assert result.reason == "stopped", result.explain() + "\n" + shown
    assert re.search(r"Pass: +1 +Errors: +0\b", shown), shown
    assert frames > 200000


@pytest.mark.long
def test_memory_tester():
    """Debian's memtest86+, started by Linux's boot protocol, finds no fault. Tests 4, 5, 6, 8 and 9,
    which go through memory 850 of 950 times, are taken out of its list by its menus."""
    with locked(linux.CACHE):
        kernel = linux.Packages().tree("memtest86+") / "boot/memtest86+x64.bin"
    remove = b"".join(b"2%d\r" % n for n in (4, 5, 6, 8, 9))
    answer = b"1" b"1" + remove + b"0" b"0"  # configuration, test selection, both left
    memory_tester(kernel, "memtest", rb"Pass: +1 ", "nobench", b"<F1> Configuration", answer)


# The last of Debian's memory testers with a Multiboot image.
MULTIBOOT = ("bullseye", "memtest86+", "5.01-3.1",
             "84456c397dec7e5d5b7c9fb0550d087c8bea8e744779a5cfac9aed3483320893")


def multiboot_tester():
    suite, package, version, digest = MULTIBOOT
    with locked(linux.CACHE):
        folder = linux.CACHE / suite
        deb = folder / f"{package}_{version}_amd64.deb"
        if not deb.exists() or sha256(deb) != digest:
            apt = PrivateApt(folder / "apt", suite, "deb")
            try:
                apt.update(pinned=True)
                apt.download(folder, f"{package}={version}")
            except Failure as failure:
                pytest.skip(f"{package} {version} cannot be had from here: {failure}")
            assert sha256(deb) == digest
        if not (folder / "tree").is_dir():
            linux.unpack(deb, folder / "tree")
        return folder / "tree/boot/memtest86+_multiboot.bin"


@pytest.mark.long
def test_multiboot_memory_tester():
    """Debian 11's memtest86+ by Multiboot, as it is, finds no fault. Of its tests it runs those with
    addresses, ones and zeros, and random numbers: they go through memory 60 of 720 times."""
    memory_tester(multiboot_tester(), "memtest-multiboot", rb"Pass complete",
                  "tstlist=0,1,2,3,8")


@pytest.mark.long
def test_node_on_linux():
    """The guest's checks of all its memory hold with a quarter of it here."""
    build("guests", "memnode")
    nic = Nic()
    config = Config(name="a node on Linux", folder=ROOT)
    config.set("umbra", "network", "10.77.0.2/24")
    for key, value in {"kernel": BUILD / "guest/remote.elf", "memory": "8M", "local": "2M",
                       "cmdline": "mib=4", "remote": ADDRESS, "remote_token": "sesame"}.items():
        config.set("vm remote", key, value)
    with Linux(Wire(nic), memory=384) as host:
        host.node("--size 64 --token sesame")
        result = boot(config=config, name="remote-linux", emulator_name="bochs3", nic=nic, ips=IPS,
                      timeout=400)
        said = host.run("cat /tmp/out")[1]
    assert result.status == 1 and result.vms["remote"].tap.passed, result.explain("remote")
    assert re.search(r"slice 0: 10\.77\.0\.2 connected", said), said
