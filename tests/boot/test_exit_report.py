"""scripts/run --report with a guest that counts what it does: the page says the same."""

import html
import re
import subprocess
import xml.etree.ElementTree as ET

import pytest

from harness import have_emulator
from tiny import HEADER
from umbra_tools.base import BUILD, ROOT

CPUIDS, PORTS, CALLS, READS = 1500, 700, 300, 400
STATS = (10, 30, 18, 48)  # CPUID, I/O, VMCALL, EPT violation
PRINTED = 9 * len(STATS)  # OUTs that print what HC_STAT returned, a byte each

# Multiboot by its address header, in an ELF file for the sake of its symbols.
SOURCE = HEADER + """
	.macro times number, body:vararg
	mov $\\number, %edi
1:	\\body
	dec %edi
	jnz 1b
	.endm
entry:	mov $0x90000, %esp
	times CPUIDS, call the_cpuid
	times PORTS, call the_port
	times CALLS, call the_call
	times READS, call the_read
	.irp reason, 10, 30, 18, 48
	mov $4, %eax			/* HC_STAT */
	mov $(0x100 + \\reason), %ebx
	vmcall
	push %eax
	.endr
	mov 12(%esp), %ecx
	call print
	mov 8(%esp), %ecx
	call print
	mov 4(%esp), %ecx
	call print
	mov (%esp), %ecx
	call print
	xor %eax, %eax
	mov $0xf4, %edx
	out %eax, (%dx)
9:	hlt
	jmp 9b
	.type the_cpuid, @function
the_cpuid:
	xor %eax, %eax
	cpuid
	ret
	.type the_port, @function
the_port:
	mov $0x1230, %edx
	out %al, (%dx)
	ret
	.type the_call, @function
the_call:
	mov $1, %eax			/* HC_NOP */
	vmcall
	ret
	.type the_read, @function
the_read:
	mov 0xfec00010, %eax
	ret
	.type print, @function
print:	mov $8, %edi			/* ECX in hexadecimal and a newline */
	mov $0x3f8, %edx
2:	rol $4, %ecx
	mov %ecx, %eax
	and $15, %eax
	movb digits(%eax), %al
	out %al, (%dx)
	dec %edi
	jnz 2b
	mov $'\\n', %al
	out %al, (%dx)
	ret
digits:	.ascii "0123456789abcdef"
end:
"""


@pytest.fixture(scope="module")
def kernel():
    folder = BUILD / "boot-tests"
    folder.mkdir(parents=True, exist_ok=True)
    obj, elf = folder / "counted.o", folder / "counted.elf"
    defines = [f"--defsym={k}={v}" for k, v in (("CPUIDS", CPUIDS), ("PORTS", PORTS),
                                                ("CALLS", CALLS), ("READS", READS))]
    subprocess.run(["as", "--32", *defines, "-o", obj], input=SOURCE, text=True, check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x100000", "-o", elf, obj], check=True)
    return elf


def rows(page, ident):
    """Cells of the table with this id, without its head."""
    root = ET.fromstring(page.replace("<!DOCTYPE html>", ""))
    table = root.find(f".//table[@id='{ident}']")
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")][1:]


def number(text):
    return int(text.replace(",", ""))


@pytest.mark.parametrize("emulator", ["bochs", "bochs3"])
def test_counted_guest(emulator, kernel, tmp_path):
    if not have_emulator(emulator):
        pytest.skip("this machine has no Bochs 2.7")
    page, log, serial = tmp_path / "r.html", tmp_path / "log", tmp_path / "serial"
    done = subprocess.run([ROOT / "scripts/run", "--no-build", "--emulator", emulator, "--kernel",
                           kernel, "--guest-mem", "16", "--serial", serial, "--log", log,
                           "--report", page, "--timeout", "150"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
    assert done.returncode == 1, done.stderr
    assert "@R" not in log.read_text() + done.stderr + done.stdout
    assert "umbra: vm guest ended: 1" in log.read_text()
    assert "report: " not in done.stderr, done.stderr
    text = page.read_text()
    assert 'class="problem"' not in text

    # What the guest was told, what it knows that it did, and what the page says.
    told = dict(zip(STATS, (int(word, 16) for word in serial.read_text().split())))
    assert told == {10: CPUIDS, 30: PORTS, 18: CALLS + 3, 48: told[48]}
    assert READS <= told[48] <= READS + 20  # its code and stack, too
    names = {10: "CPUID", 30: "I/O instruction", 18: "VMCALL", 48: "EPT violation"}
    expected = {10: CPUIDS, 30: PORTS + PRINTED + 1, 18: CALLS + len(STATS), 48: told[48]}
    reasons = {row[0]: row for row in rows(text, "reasons-guest-0")}
    for reason, name in names.items():
        assert number(reasons[name][1]) == expected[reason], reasons[name]
    total = sum(number(row[1]) for name, row in reasons.items() if name != "all")
    assert number(reasons["all"][1]) == total
    vcpu = rows(text, "vcpus-guest-0")[0]
    assert number(vcpu[2]) == total
    assert number(vcpu[8]) == told[48]
    assert number(vcpu[9]) == PORTS  # nothing is at that port
    # The plots add up to the same.
    hints = [html.unescape(m) for m in re.findall(r"<title>([^<]*)</title>", text)]
    plotted = [re.fullmatch(r"CPUID: ([\d,]+) in .* s", hint) for hint in hints]
    assert sum(number(m[1]) for m in plotted if m) == CPUIDS
    shaded = [re.fullmatch(r"CPUID: ([\d,]+) exits of .* ticks", hint) for hint in hints]
    assert sum(number(m[1]) for m in shaded if m) == CPUIDS

    # Most exits come from one instruction, most of the cost from another.
    hottest, second = rows(text, "hot-exits-guest-0")[:2]
    assert re.fullmatch(r"0x10[0-9a-f]+ the_cpuid\+0x2", hottest[0]), hottest
    assert hottest[1:4] == ["CPUID", f"{CPUIDS:,}", "0"]
    assert second[0].endswith(" the_port+0x5") and number(second[2]) == PORTS, second
    dearest = rows(text, "hot-ticks-guest-0")[0]
    assert dearest[0].endswith(" the_read") and number(dearest[4]) == READS, dearest
    assert dearest[1] == "EPT violation"
    assert number(dearest[2]) > number(reasons["CPUID"][3])
    page_row = rows(text, "hot-pages-guest-0")[0]
    assert page_row[0] == "0xfec00000" and number(page_row[2]) == READS
    # The last exit is the one that ended the VM.
    assert re.search(r"port 0xf4</td>", text)
    # Root mode: no exit is free, and none of these takes a hundred thousand ticks on average.
    for name in names.values():
        assert 50 < number(reasons[name][5]) < 100000, reasons[name]


def test_neighbours_go_on(tmp_path):
    """A report takes a second or two on the serial line, of which others on the CPU get their turns.
    Each VM has its report."""
    conf, page, log = tmp_path / "umbra.conf", tmp_path / "r.html", tmp_path / "log"
    roles = {"one": ("isolation", "seed=1 rounds=1500 max-gap-ms=80"),
             "two": ("sharing", "seed=2 role=busy min=20"),
             "three": ("sharing", "seed=3 role=sleep ms=200")}
    conf.write_text("".join(f"[vm {vm}]\nkernel = {BUILD}/guest/{kernel}.elf\nmemory = 16M\n"
                            f"cpus = 0\ncmdline = {cmdline}\n"
                            for vm, (kernel, cmdline) in roles.items()))
    done = subprocess.run([ROOT / "scripts/run", "--no-build", "--emulator", "bochs3", "--config",
                           conf, "--report", page, "--log", log, "--timeout", "150"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr
    text = page.read_text()
    assert 'class="problem"' not in text
    found = {row[0]: row for row in rows(text, "summary")}
    assert sorted(found) == sorted(roles)
    for vm in roles:
        exits = int(re.search(rf"vm {vm}: (\d+) exits", log.read_text())[1])
        assert number(found[vm][2]) == exits
    # Who sleeps most of the time does so by the page, too.
    asleep, ran = (float(rows(text, "vcpus-three-0")[0][i]) for i in (4, 3))
    assert asleep > 2 * ran
