"""The scripts' own parts: apt sources, configurations, images, results, layers."""

import hashlib
import os
import re
import shutil
import subprocess

import pytest

from umbra_tools import config, debian, disk, emulator, results, run
from umbra_tools.base import ROOT, Failure

SOURCES = {
    "deb822": ("sources.list.d/debian.sources", """\
# a comment
Types: deb deb-src
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
# between
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
"""),
    "one-line": ("sources.list", """\
deb-src http://src.example/debian bookworm main
#deb http://off.example/debian bookworm main
deb [arch=amd64 trusted=yes] http://mirror.example/debian bookworm main non-free # note
"""),
    "list.d": ("sources.list.d/x.list", "deb http://mirror.example/debian trixie main\n"),
}


@pytest.mark.parametrize("form", SOURCES)
def test_mirror(form, tmp_path):
    name, text = SOURCES[form]
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert debian.mirror(tmp_path) == ("http://mirror.example/debian", None)


def test_mirror_forms(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    file = tmp_path / "sources.list.d/d.sources"
    file.write_text("Types: deb\nURIs: mirror+file:/etc/apt/mirrors/debian.list\nSuites: trixie\n"
                    f"Components: main\nSigned-By: {file}\n")
    assert debian.mirror(tmp_path) == ("mirror+file:/etc/apt/mirrors/debian.list", str(file))
    file.write_text("Enabled: no\n" + file.read_text())
    with pytest.raises(Failure, match="no Debian mirror"):
        debian.mirror(tmp_path)


def test_config_values():
    c = config.Config('[umbra]\nlog_level = debug # loud\n[vm a]\ncmdline = "x # \\"y\\" ; z"\n'
                      "kernel = k;no\n; comment = 1\n")
    assert c.get("umbra", "log_level") == "debug"
    assert c.get("vm a", "cmdline") == 'x # "y" ; z'
    assert c.get("vm a", "kernel") == "k;no"
    assert c.vms() == ["a"]
    for value in ("plain", 'a "b" # c', "back\\slash", " blanks ", "", "a;b"):
        c.set("vm a", "cmdline", value)
        assert config.Config(c.text()).get("vm a", "cmdline") == value
    c.set("umbra", "order", "sequence")
    c.remove("vm a")
    assert c.text() == "[umbra]\norder = sequence\nlog_level = debug # loud\n"


def test_config_messages_name_the_users_line():
    c = config.Config("[umbra]\nhide = warp\n[vm a]\n[vm b]\nvcpu = 1\n", "mine.conf")
    c.set("umbra", "log", "com2")
    c.remove("vm a")
    assert c.text().splitlines()[4] == "vcpu = 1"
    assert c.as_written(r"error: \umbra\umbra.conf:5: x") == "error: mine.conf:5: x"
    assert c.as_written(r"error: \umbra\umbra.conf:3: x") == "error: mine.conf:2: x"
    # A line that the scripts have added, and no line at all.
    for text in (r"\umbra\umbra.conf:2: x", r"\umbra\umbra.conf: x"):
        assert c.as_written(text) == text


def test_config_collects_files(tmp_path):
    for name in ("one/kernel", "two/kernel", "one/a b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    c = config.Config("[vm a]\nkernel = one/kernel\nmodules = two/kernel x,,y, one/kernel\n"
                      "disks = one/kernel ro, one/kernel\n"
                      "[vm b]\nkernel = one/a b\n", folder=tmp_path)
    assert c.disk_bytes("a") == 3 * len("one/kernel") and c.disk_bytes("b") == 0
    files = c.collect()
    assert sorted(files) == ["umbra/files/2-kernel", "umbra/files/a_b", "umbra/files/kernel"]
    assert c.get("vm a", "kernel") == "/umbra/files/kernel"
    assert c.get("vm a", "modules") == "/umbra/files/2-kernel x,,y, /umbra/files/kernel"
    assert c.get("vm a", "disks") == "/umbra/files/kernel ro, /umbra/files/kernel"
    broken = config.Config("[vm a]\nkernel = nothing\n", "x.conf", tmp_path)
    with pytest.raises(Failure, match=r"x\.conf:2: .*nothing does not exist"):
        broken.collect()


def fsck(image, tmp_path):
    """The partition's file system as fsck and mtools see it."""
    data = image.read_bytes()
    assert data[510:512] == b"\x55\xaa" and data[512:520] == b"EFI PART"
    part = tmp_path / "part"
    part.write_bytes(data[disk.START * 512:-disk.GPT_TAIL * 512])
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    subprocess.run(["fsck.vfat", "-n", part], check=True, env=env, stdout=subprocess.DEVNULL)
    return part


@pytest.mark.parametrize("fat", [None, 16, 32])
@pytest.mark.parametrize("size", [10, 3 << 20, 40 << 20])
def test_image(fat, size, tmp_path):
    """Valid, complete, no larger than needed, and the same every time."""
    big = bytes(range(256)) * (size // 256) + bytes(size % 256)
    files = {"EFI/BOOT/BOOTX64.EFI": b"loader", "umbra/files/A long name.with dots.elf": big,
             **{f"umbra/files/f{n}": b"x" for n in range(40)}}
    image = disk.build_image(files, tmp_path / "a.img", fat)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    os.utime(image, (0, 0))
    assert hashlib.sha256(disk.build_image(files, tmp_path / "b.img", fat).read_bytes()) \
        .hexdigest() == digest
    part = fsck(image, tmp_path)
    out = subprocess.run(["mtype", "-i", part, "::umbra/files/A long name.with dots.elf"],
                         check=True, stdout=subprocess.PIPE).stdout
    assert out == big
    least = {None: 0, 16: 2 << 20, 32: 33 << 20}[fat]
    assert image.stat().st_size < max(least, size) * 1.03 + (4 << 20)


def test_image_keeps_saved_memory(tmp_path):
    """A partition of the size that the configuration needs; what is in it outlives the files, also
    where it is larger than what is needed now."""
    c = config.Config("[vm a]\npmem = ram 2M, ram 4M saved,host 1\n[vm b]\npmem = ram 2M  saved\n")
    assert c.saved_regions() == [4 << 20, 2 << 20] and c.pmem_bytes("a") == 6 << 20
    image = tmp_path / "a.img"
    disk.build_image({"a": b"1"}, image)
    assert disk.find_partition(image, disk.SAVED_TYPE) is None
    disk.build_image({"a": b"1"}, image, saved=c.saved_regions(), keep=image)
    first, sectors = disk.find_partition(image, disk.SAVED_TYPE)
    assert sectors * 512 > 2 * (6 << 20) and sectors * 512 < 2.1 * (6 << 20) + (1 << 20)
    said = subprocess.run(["sfdisk", "--verify", image], capture_output=True, text=True,
                          env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
    assert said.returncode == 0 and "No errors detected" in said.stdout, said
    marks = {0: b"begin", sectors // 2: b"middle", sectors - 1: b"end"}
    with open(image, "r+b") as file:
        for sector, text in marks.items():
            file.seek((first + sector) * 512)
            file.write(text)
    disk.build_image({"a": b"1", "b": bytes(9 << 20)}, image, saved=[2 << 20], keep=image)
    at, length = disk.find_partition(image, disk.SAVED_TYPE)
    assert at > first and length == sectors
    data = image.read_bytes()
    for sector, text in marks.items():
        assert data[(at + sector) * 512:][:len(text)] == text
    (tmp_path / "other").write_bytes(bytes(4096))
    with pytest.raises(Failure, match="is not a disk"):
        disk.build_image({"a": b"1"}, image, keep=tmp_path / "other")


def test_image_names_what_is_missing(tmp_path):
    with pytest.raises(Failure, match="nowhere does not exist"):
        disk.build_image({"a": tmp_path / "nowhere"}, tmp_path / "x.img")


def test_tap():
    good = results.parse_tap(["# note", "ok 1 - a", "ok 2 - b # SKIP why", "ok 3 # SKIP none",
                              "1..3"])
    assert good.problem() is None and good.passed == 1 and len(good.skipped) == 2
    for lines, problem in ((["ok 1 - a"], "no plan"), (["1..2", "ok 1"], "1 of 2"),
                           (["not ok 1 - bad", "1..1"], "failed: bad"),
                           (["1..1", "Bail out! lost"], "bail out: lost")):
        assert problem in results.parse_tap(lines).problem()


def test_results_by_vm():
    console = b"\x1b[2Jumbra-loader: starting Umbra\r\na| ok 1 - x\r\nb| not ok 1 - y\r\na| 1..1\r\n" \
              b"b| 1..1\r\nb|\r\n"
    log = b"[  0.1 cpu0] umbra: vm a ended: 1 done\r\n[  0.2 cpu1] umbra: vm b ended: 3 (exit)\r\n"
    a, b, c = results.vm_results(["a", "b", "c"], console, log)
    assert a.problem() is None and a.status == 1
    assert b.status == 3 and "failed: y" == b.problem()
    assert c.problem() == "did not end"
    assert "3 guests: 1 passed, 2 failed" in results.summary([a, b, c])


def test_plain():
    assert emulator.plain(b"\x1b[2J\x1b[01;01H\x1b[=3hA\r\n\x1b[1;37mB\xff") == "A\nB\ufffd"


def test_log_beside_console(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    lines = run.LogLines()

    def console(text):
        lines.console(text.encode())
        print(text, end="", file=run.sys.stderr)

    console("ok 1 - a po")
    lines(b"[ 1.0 cpu0] wh")
    lines(b"ole\n[ 1.1")
    lines.on_time()
    console("int\n")
    console("/ # ")
    now[0] += 0.1
    lines(b" cpu0] later\n[ 1.2 cpu0] cut")
    lines.on_time()
    shown = "ok 1 - a point\n[ 1.0 cpu0] whole\n/ # "
    assert capsys.readouterr().err == shown
    now[0] += 1
    lines.on_time()
    assert capsys.readouterr().err == "\n[ 1.1 cpu0] later\n"
    lines.end()
    assert capsys.readouterr().err == "[ 1.2 cpu0] cut"


@pytest.mark.parametrize("file,include,fine", [
    ("hv/mem/x.c", "lib/types.h", True), ("hv/mem/x.c", "mem/frame.h", True),
    ("hv/mem/x.c", "vm/vm.h", False), ("hv/lib/x.S", "x86/asm.h", False),
    ("hv/main.c", "dev/uart.h", True), ("hv/dev/x.h", "attic/y.h", False)])
def test_layers(file, include, fine, tmp_path):
    """check-layers finds an arrow upwards."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/check-layers", tmp_path / "scripts")
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'#include "{include}"\n')
    done = subprocess.run([tmp_path / "scripts/check-layers"], capture_output=True, text=True)
    assert (done.returncode == 0) == fine, done.stderr
    assert fine or re.search(rf"^{re.escape(file)}:1: ", done.stderr)


def test_device_refusals():
    """scripts/image --device: not a block device; the disk that holds the root file system."""
    image = [ROOT / "scripts/image", "--no-build", "--device"]
    done = subprocess.run([*image, "/dev/null"], capture_output=True, text=True, input="YES\n")
    assert done.returncode == 1 and "not a block device" in done.stderr
    source = subprocess.run(["findmnt", "-no", "SOURCE", "/"], capture_output=True, text=True)
    if not os.path.exists(source.stdout.strip()):
        pytest.skip("the root file system is on no disk of this machine")
    done = subprocess.run([*image, source.stdout.strip()], capture_output=True, text=True,
                          input="YES\n")
    assert done.returncode == 1
    assert "refusing to overwrite" in done.stderr or "not a whole disk" in done.stderr


def test_ci_calls_the_tests():
    assert "scripts/test" in (ROOT / ".ci/run").read_text()
