"""The console's switch and the monitor, as somebody at the terminal meets them: two VMs that run on
and on (guest/monitored.c), keys typed, and what comes back held against what must be true."""

import os
import re

import pytest

from harness import boot, have_emulator, select
from test_linux import HIDE, healthy, parts
from umbra_tools import linux

CTRL_A = "\x01"
PROMPT = r"umbra (\w+)> "


class Terminal:
    """Plays a script: a generator that types, and yields patterns to wait for. Each is searched for
    in what has come since the last match, which it gets."""

    def __init__(self, script):
        self.reader, self.writer = os.pipe()
        self.raw, self.at, self.done = b"", 0, False
        self.text = ""
        self.script = script(self)
        self.wanted = next(self.script)

    def type(self, text):
        os.write(self.writer, text.encode())

    def command(self, text):
        """A line for the monitor; yields until it has been answered, and gives the answer."""
        self.type(text + "\r")
        yield re.escape(text) + r"\n"
        start = self.at
        yield r"(?m)^" + PROMPT
        answer = self.text[start:self.at].rsplit("umbra ", 1)[0]
        assert all(len(line) <= 80 for line in answer.split("\n")), answer
        return answer

    def take(self, data, umbra_runs):
        if not umbra_runs:
            return
        self.raw += data
        text = re.sub(rb"\x1b[^A-Za-z]*$", b"", self.raw).decode(errors="replace")
        text = re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b\(B|[\r\0\x0f]", "", text)
        self.text = text
        while not self.done and (found := re.search(self.wanted, text[self.at:])):
            self.at += found.end()
            try:
                self.wanted = self.script.send(found)
            except StopIteration:
                self.done = True


MONITORED = {"kernel": "${BUILD}/guest/monitored.elf", "memory": "16M"}


def play(script, name, emulator, cpus, vms, **umbra):
    settings = {vm: {**MONITORED, **keys} for vm, keys in vms.items()}
    return play_with(select(vms, settings, {"order": "together", **umbra}), script, name, emulator,
                     cpus)


def play_with(config, script, name, emulator, cpus, timeout=200, **options):
    if not have_emulator(emulator):
        pytest.skip("this machine has no Bochs 2.7")
    terminal = Terminal(script)
    try:
        result = boot(config=config, cpus=cpus, name=f"monitor-{name}-{emulator}-{cpus}",
                      emulator_name=emulator, timeout=timeout, keys=terminal.reader,
                      on_console=terminal.take, **options)
    except AssertionError:
        print(terminal.text[-5000:])
        raise
    finally:
        os.close(terminal.reader)
        os.close(terminal.writer)
    assert terminal.done, (f"waited for {terminal.wanted!r} after\n"
                           f"{terminal.text[max(0, terminal.at - 1000):]}\n---\n{result.explain()}")
    return result


def places(text):
    """Where the guest says that its mark and its kernel are."""
    found = re.findall(r"# mark (\w+) kernel (\w+) (\w+)", text)
    return [int(n, 16) for n in found[-1]]


def beats(text):
    return [(int(n), int(t)) for n, t in re.findall(r"# beat (\d+) at (\d+)\n", text)]


def look_around(t):
    """What the monitor shows of a VM that runs."""
    yield r"\[umbra: console of busy; Ctrl-A h: keys\]"
    yield r"# beat 3 at"
    mark, first, end = places(t.text)
    t.type("z")
    yield r"# typed z"
    t.type(CTRL_A + "m")
    assert (yield PROMPT)[1] == "busy"

    answer = yield from t.command("vms")
    assert re.search(r"(?m)^\* 1 +busy +running +1 +16 MiB +0$", answer), answer
    assert re.search(r"(?m)^  2 +idle +running", answer), answer
    answer = yield from t.command("vcpus")
    assert re.search(r"(?m)^ +0 +\d+ +runs +\d+ +\d+ +\d+$", answer), answer
    answer = yield from t.command("vcpus idle")
    assert re.search(r"(?m)^ +0 +\d+ +(halted|runs) ", answer), answer

    answer = yield from t.command("regs")
    assert first <= int(re.search(r"RIP (\w{16})", answer)[1], 16) < end, answer
    assert int(re.search(r"CR0 (\w{16})", answer)[1], 16) & 0x80000001 == 0x80000001
    assert int(re.search(r"EFER (\w+)", answer)[1], 16) & 0x500 == 0x500
    rsp = int(re.search(r"RSP (\w{16})", answer)[1], 16)
    assert first <= rsp < 16 << 20, answer
    # Halted: the registers are those of the HLT.
    answer = yield from t.command("regs idle 0")
    assert first <= int(re.search(r"RIP (\w{16})", answer)[1], 16) < end, answer

    answer = yield from t.command(f"mem {mark:x} 24")
    assert re.search(rf"(?m)^{mark:012x}  54 68 65 20 6d 6f 6e 69  74 6f 72 20 63 61 6e 20  "
                     r"The monitor can $", answer), answer
    assert re.search(rf"(?m)^{mark + 16:012x}  72 65 61 64 20 74 68 69 +read thi$", answer), answer
    assert "nothing there" in (yield from t.command("mem 0x90000000"))
    assert "a device" in (yield from t.command("mem fee00000"))

    answer = yield from t.command(f"walk {mark:x}")
    assert re.search(rf"GPA   {mark:016x}, in a page of 4 KiB", answer), answer
    assert [line.split()[0] for line in answer.split("\n") if line] == \
        ["CR3", "PML4E", "PDPTE", "PDE", "PTE", "GPA"], answer
    assert re.search(r"PTE   0*{0:x}... at \w+: P W A D$".format(mark >> 12), answer, re.M), answer
    answer = yield from t.command("walk 800123")
    assert re.search(r"(?m)^GPA   0000000000800123, in a page of (2 M|1 G)iB$", answer), answer
    assert "not present" in (yield from t.command("walk 7f0000000000"))

    answer = yield from t.command(f"ept {mark:x}")
    assert "RAM from 0 to ffffff, allowed: r--" in answer, answer
    assert "default view: r--, page of 4 KiB, WB" in answer, answer
    answer = yield from t.command(f"ept {first:x}")
    assert "allowed: rwx" in answer and "default view: rwx" in answer, answer
    assert "not mapped" in (yield from t.command("ept 100000000"))

    answer = yield from t.command("stats")
    total = int(re.search(r"busy: (\d+) exits", answer)[1])
    counts = [int(n) for n in re.findall(r"(?m)^ *(\d+) +\d+%  ", answer)]
    assert sum(counts) == total and counts == sorted(counts, reverse=True), answer
    assert re.search(r"(?m)^ +\d+ +\d+%  VMCALL", answer), answer

    yield from t.command("trace busy on")
    yield from t.command("stats idle")  # takes some time
    answer = yield from t.command("trace busy 4")
    shown = re.findall(r"(?m)^ *(\d+) (\w{16}) +\d+ ", answer)
    assert len(shown) == 4 and shown == sorted(shown, key=lambda line: int(line[0])), answer
    assert all(first <= int(rip, 16) < end for _, rip in shown), answer
    yield from t.command("trace busy off")

    answer = yield from t.command("log 5")
    assert len(re.findall(r"(?m)^\[ *\d+\.\d{6} cpu\d+\] ", answer)) == 5, answer


def mistakes(t):
    assert "unknown command bogus; try help" in (yield from t.command("bogus"))
    assert "usage: mem GPA [BYTES]" in (yield from t.command("mem"))
    assert "usage: mem GPA [BYTES]" in (yield from t.command("mem xyz"))
    assert "there is no VM nobody" in (yield from t.command("regs nobody"))
    assert "vCPUs of busy are 0 to 0" in (yield from t.command("regs busy 7"))
    assert "usage: kill VM" in (yield from t.command("kill"))
    answer = yield from t.command("help")
    for command in ("vms", "regs", "walk", "restart", "quit"):
        assert re.search(rf"(?m)^{command} ", answer), answer
    # Completion, corrections, and the line before.
    t.type("vmx\x7fs\x15xx\x17foc\tbu\t\x15vcp\tid\t\r")
    yield r"vCPU  CPU  state"
    yield PROMPT
    t.type("\x1b[A\x1b[A\x1b[B\r")
    yield r"vCPU  CPU  state"
    yield PROMPT
    # A long answer is broken off.
    t.type("mem 0 1000000\r")
    yield r"\n000000000200  "
    t.type("\x03")
    yield r"\^C\n" + PROMPT


def pause_and_resume(t):
    """A paused VM does nothing, and does not notice."""
    answer = yield from t.command("pause busy")
    assert answer == "", answer
    answer = yield from t.command("vms")
    assert re.search(r"(?m)^\* 1 +busy +paused ", answer), answer
    first = yield from t.command("regs")
    t.type(CTRL_A + "1")
    yield r"console of busy; Ctrl-A h: keys\]"
    t.type(CTRL_A + "2")
    yield r"console of idle; Ctrl-A h: keys\]"
    before = beats(t.text)[-1]
    for _ in range(5):
        yield r"# nap \d+ at"
    t.type(CTRL_A + "1")
    yield r"console of busy; Ctrl-A h: keys\]"
    t.type(CTRL_A + "m")
    yield PROMPT
    assert beats(t.text)[-1] == before
    assert first == (yield from t.command("regs"))
    assert "busy is paused already" in (yield from t.command("pause"))
    yield from t.command("resume")
    t.type(CTRL_A + "1")
    yield rf"# beat {before[0] + 3} at"
    after = [beat for beat in beats(t.text) if beat[0] > before[0]]
    # 500 ms have gone by for the other one.
    assert after[0][1] - before[1] < 60, (before, after)
    assert "# gap" not in t.text[t.text.rindex(f"# beat {before[0]} at"):]
    t.type(CTRL_A + "m")
    yield PROMPT


def all_paused(t):
    """The monitor is there though no VM wants a CPU."""
    yield from t.command("pause 1")
    yield from t.command("pause 2")
    answer = yield from t.command("vms")
    assert len(re.findall("paused", answer)) == 2
    assert "RIP" in (yield from t.command("regs idle"))
    yield from t.command("resume 1")
    yield from t.command("resume 2")
    assert "busy is not paused" in (yield from t.command("resume busy"))


def ends(t):
    yield from t.command("nmi busy")
    t.type(CTRL_A + "1")
    yield r"# nmi\n"
    t.type(CTRL_A + "m")
    yield PROMPT
    yield from t.command("restart busy")
    t.type(CTRL_A + "1")
    yield r"# beat 2 at"
    assert t.text.count("# beat 0 at") > 1
    t.type(CTRL_A + "m")
    yield PROMPT
    answer = yield from t.command("vms")
    assert re.search(r"(?m)^\* 1 +busy +running +1 +16 MiB +1$", answer), answer
    yield from t.command("kill busy")
    while "running" in re.search(r"(?m)^\* 1 .*$", (yield from t.command("vms")))[0]:
        pass
    answer = yield from t.command("vms")
    assert "status 137: killed from the monitor" in answer
    assert "the VM does not run" in (yield from t.command("regs"))
    # The other one goes on.
    yield from t.command("vm idle")
    t.type("quit\r")
    yield r"console of busy, which has ended"
    t.type(CTRL_A + "n")
    yield r"console of idle; Ctrl-A h: keys\]"
    last = max(int(n) for n in re.findall(r"# nap (\d+)", t.text))
    yield rf"# nap {last + 3} at"
    # One that has ended can be started again.
    t.type(CTRL_A + "mrestart busy\r" + CTRL_A + "1")
    yield r"console of busy.*\]"
    yield r"# beat 2 at"
    t.type(CTRL_A + "a")
    yield r"all VMs; Ctrl-A h: keys\]"
    yield r"(?m)^busy\| # beat"
    yield r"(?m)^idle\| # nap"
    t.type(CTRL_A + "x")


def everything(t):
    yield from look_around(t)
    yield from mistakes(t)
    yield from pause_and_resume(t)
    yield from all_paused(t)
    yield from ends(t)


@pytest.mark.parametrize("emulator,cpus", [("bochs", 2), ("bochs3", 1)])
def test_monitor(emulator, cpus):
    """Two VMs, on a CPU each and on one."""
    result = play(everything, "all", emulator, cpus,
                  {"busy": {}, "idle": {"cmdline": "role=idle"}}, focus="busy")
    assert result.reason == "end", result.explain()
    assert "umbra: vm busy ended: 137 killed from the monitor" in result.log
    for vm in ("busy", "idle"):
        assert f"umbra: vm {vm} ended: 0 shut down from the console" in result.log
    assert result.status == 137
    assert not re.search(r"\] error: ", result.log), result.explain()


def several_vcpus(t):
    yield r"\[umbra: monitor; Ctrl-A h: keys\]"
    yield PROMPT
    t.type(CTRL_A + "1")
    yield r"# beat 3 at"
    _, first, end = places(t.text)
    t.type(CTRL_A + "m")
    yield PROMPT
    answer = yield from t.command("vcpus")
    assert len(re.findall(r"(?m)^ +\d +\d ", answer)) == 3, answer
    for vcpu in range(3):
        answer = yield from t.command(f"regs smp {vcpu}")
        assert first <= int(re.search(r"RIP (\w{16})", answer)[1], 16) < end, answer
    yield from t.command("pause")
    t.type(CTRL_A + "1")
    yield r"console of smp.*\]"
    t.type(CTRL_A + "m")
    yield PROMPT
    before = beats(t.text)[-1]
    answer = yield from t.command("vcpus")
    assert len(re.findall(r"paused", answer)) == 3, answer
    yield from t.command("resume")
    t.type(CTRL_A + "1")
    yield rf"# beat {before[0] + 3} at"
    assert "# gap" not in t.text
    t.type(CTRL_A + "mkill smp\r")


@pytest.mark.parametrize("emulator,cpus", [("bochs", 4), ("bochs3", 1)])
def test_several_vcpus(emulator, cpus):
    result = play(several_vcpus, "smp", emulator, cpus, {"smp": {"vcpus": 3, "cmdline": "smp"}},
                  focus="monitor")
    assert result.reason == "end" and result.status == 137, result.explain()


LINUX = r"""
echo @@ ready; read answer
echo @@ typed; echo $answer
echo @@ uptime; cat /proc/uptime
echo @@ nap; nap 500
echo @@ dmesg; dmesg -r
echo @@ end
"""


def linux_pauses(t):
    yield r"@@ ready"
    t.type(CTRL_A + "m")
    yield PROMPT
    yield from t.command("vm linux")
    for vcpu in range(2):
        answer = yield from t.command(f"regs linux {vcpu}")
        assert "CPL 0" in answer and re.search(r"RIP ffffffff\w{8} ", answer), answer
    rip = re.search(r"RIP (\w{16})", answer)[1]
    answer = yield from t.command(f"walk {rip} 1")
    place = re.search(r"GPA   (\w{16}), in a page of", answer)[1]
    assert place[-3:] == rip[-3:]
    assert re.search(rf"(?m)^{place[4:]}  \w\w ", (yield from t.command(f"mem {place} 16")))
    t.type(CTRL_A + "2")
    yield r"# nap \d+ at (\d+)\n"
    t.type(CTRL_A + "m")
    yield PROMPT
    yield from t.command("pause")
    start = int(re.findall(r"# nap \d+ at (\d+)\n", t.text)[-1])
    t.type(CTRL_A + "2")
    # Longer than the watchdogs of soft lockups and of RCU wait.
    while int((yield r"# nap \d+ at (\d+)\n")[1]) < start + 30000:
        pass
    t.type(CTRL_A + "m")
    yield PROMPT
    yield from t.command("resume")
    t.type(CTRL_A + "1go on\r")
    yield r"@@ end"
    yield r"linux has ended"
    t.type(CTRL_A + "x")


@pytest.mark.parametrize("emulator,cpus", [
    ("bochs3", 1), pytest.param("bochs", 2, marks=pytest.mark.long)])
def test_linux_does_not_notice(emulator, cpus):
    """Half a minute of pause: no watchdog barks, and the clock has not moved."""
    config = linux.configuration("cloud", vcpus=2, memory=256, alone=True, session=LINUX,
                                 name="monitor")
    for key, value in {**MONITORED, "cmdline": "role=idle", "cpus": "0"}.items():
        config.set("vm idle", key, value)
    config.set("umbra", "focus", "linux")
    config.set("umbra", "order", "together")
    result = play_with(config, linux_pauses, "linux", emulator, cpus, timeout=400, hide=HIDE)
    found = parts(result.console.split("\n"))
    assert found["typed"][-1] == "go on", result.explain()
    healthy(found["dmesg"])
    started = float(re.search(r"\[ *([\d.]+) cpu\d\] vm linux: ", result.log)[1])
    ended = float(re.search(r"\[ *([\d.]+) cpu\d\] umbra: vm linux ended: 0", result.log)[1])
    # An idle machine's time flies: some of it goes by while keys are typed around the pause.
    assert 27 < ended - started - float(found["uptime"][0].split()[0]) < 60
    nap = re.search(r"clock (\d+) ns", found["nap"][0])
    assert 500 <= int(nap[1]) / 1e6 < 510
