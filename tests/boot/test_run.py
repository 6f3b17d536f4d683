"""scripts/run as a user meets it: exit status, terminal, files, complaints."""

import os
import re
import signal
import subprocess
import time

import pytest

from harness import have_emulator
from tiny import echo_kernel
from umbra_tools.base import BUILD, ROOT

HELLO = BUILD / "guest/hello.elf"
FAST = "bochs3"  # ends in seconds


def run(*arguments, stdin=b"", **options):
    command = [ROOT / "scripts/run", "--no-build", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=400, **options)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()


@pytest.mark.parametrize("emulator", ["bochs", "bochs3"])
def test_typing_and_status(emulator):
    """What is typed reaches the guest; value v gives the status (v<<1)|1; the firmware is unseen."""
    if not have_emulator(emulator):
        pytest.skip("this machine has no Bochs 2.7")
    status, out, err = run("--emulator", emulator, "--kernel", echo_kernel(0x21), "--timeout", 200,
                           stdin=b"Umbra echoes 0123456789 abcdefg\rq")
    assert status == 0x43, err
    assert "Umbra echoes 0123456789 abcdefg" in out
    assert out.lstrip().startswith("ready"), out


def test_status_is_one_byte():
    """As in QEMU, the process's exit status is what fits in a byte."""
    status, _, err = run("--emulator", FAST, "--kernel", echo_kernel(0xff), "--timeout", 100,
                         stdin=b"q")
    assert status == 0xff, err


def test_serial_and_log_files(tmp_path):
    serial, log = tmp_path / "serial", tmp_path / "log"
    status, out, err = run("--emulator", FAST, "--kernel", HELLO, "--append", "one two", "--initrd",
                           f"{ROOT}/linker.ld first,{ROOT}/Makefile", "--guest-mem", "32",
                           "--serial", serial, "--log", log, "--timeout", 100)
    assert status == 1, err
    assert out == ""
    text = serial.read_text()
    assert "one two" in text and "umbra-loader" not in text
    assert re.search(r"module .* first", text), text
    assert text.count("# module") == 2
    assert "umbra: vm guest ended: 1" in log.read_text()
    assert "umbra-loader" not in log.read_text()


def test_closed_stdin():
    done = subprocess.run(f"{ROOT}/scripts/run --no-build --emulator {FAST} --kernel {HELLO} "
                          "--timeout 100 <&-", shell=True, capture_output=True, timeout=300)
    assert done.returncode == 1, done.stderr


def test_a_triple_fault_is_reported():
    status, _, err = run("--emulator", FAST, "--kernel", BUILD / "guest/exceptions.elf", "--append",
                         "triple", "--timeout", 100)
    assert status == 71 and "71" in err, err


def test_time_out():
    start = time.monotonic()
    status, _, err = run("--emulator", "qemu", "--kernel", HELLO, "--timeout", 1)
    assert status == 124 and "time is up" in err
    assert time.monotonic() - start < 30


def test_no_vtx():
    status, _, err = run("--emulator", "qemu", "--kernel", HELLO, "--timeout", 60)
    assert status == 70
    assert "no VT-x" in err and "umbra-loader" in err


def test_interrupt():
    """Ctrl-C ends the script and its emulator."""
    process = subprocess.Popen([ROOT / "scripts/run", "--no-build", "--emulator", "qemu", "--kernel",
                                HELLO], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, start_new_session=True,
                               # A suite started with & has SIGINT ignored, and would pass that on.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert b"qemu" in process.stderr.readline()
    time.sleep(1)
    os.killpg(process.pid, 2)
    assert process.wait(20) == 130


@pytest.mark.parametrize("arguments,message", [
    (["--kernel", "/nowhere/kernel"], "/nowhere/kernel does not exist"),
    (["--kernel", "/tmp"], "/tmp is a folder"),
    (["--config", "/nowhere.conf"], "/nowhere.conf: No such file"),
    (["--kernel", "/bin/true", "--config", "x"], "exclude each other"),
    (["--initrd", "x"], "--initrd needs --kernel"),
    (["--kernel", "/bin/true", "--vcpus", "17"], "from 1 to 16"),
    (["--memory", "lots"], "not a size"),
    (["--emulator", "bochs", "--cpu", "i8086"], "has no CPU model i8086"),
    (["--guests", "nobody"], "no test kernel nobody"),
    (["--log", "/nowhere/log"], "no such folder"),
])
def test_mistakes(arguments, message):
    status, out, err = run(*arguments)
    assert status in (1, 2) and message in err, (status, err)
    assert "Traceback" not in err and out == ""
