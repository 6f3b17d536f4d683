"""The guests' ACPI tables in the eyes of iasl: it made the AML without a remark, and takes every
table that the hypervisor builds apart without a complaint."""

import os
import re
import subprocess
import uuid as uuid_

import pytest

from umbra_tools.base import BUILD, ROOT

TABLES = ("rsdt", "xsdt", "facp", "facs", "apic", "dsdt", "nfit")
COMPLAINT = re.compile(r"warning|error|invalid|unknown|remark|incorrect", re.I)


def iasl(*arguments, cwd):
    done = subprocess.run(["iasl", *arguments], cwd=cwd, stdin=subprocess.DEVNULL, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A directory with each table in a file, written by the unit test that builds them."""
    folder = tmp_path_factory.mktemp("acpi")
    subprocess.run([BUILD / "unit/dev_acpi_tables"], check=True, timeout=60,
                   env=dict(os.environ, ACPI_TABLES_DIR=str(folder)),
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_table(tables, name):
    status, output = iasl("-d", f"{name}.dat", cwd=tables)
    listing = (tables / f"{name}.dsl").read_text()
    # Said of every _DSM's.
    listing = listing.replace("/* Unknown UUID */", "")
    assert status == 0 and not COMPLAINT.search(output), output
    assert listing.count("\n") > 20 and not COMPLAINT.search(listing), listing


def test_compiles_without_remarks(tmp_path):
    source = tmp_path / "dsdt.asl"
    subprocess.run(["gcc", "-E", "-P", "-undef", "-nostdinc", "-x", "c", "-Ihv", "hv/dev/dsdt.asl",
                    "-o", source], cwd=ROOT, check=True, timeout=60)
    status, output = iasl("-we", "-vw", "2173", "-p", "dsdt", "dsdt.asl", cwd=tmp_path)
    assert status == 0 and "0 Errors, 0 Warnings, 0 Remarks" in output, output


def test_round_trip(tables):
    """What comes out of the disassembler compiles to the same bytes: nothing got lost in it."""
    iasl("-d", "dsdt.dat", cwd=tables)
    status, output = iasl("-p", "again", "dsdt.dsl", cwd=tables)
    assert status == 0, output
    assert (tables / "again.aml").read_bytes() == (tables / "dsdt.dat").read_bytes()


def test_nothing_of_this_machine(tables):
    """No path and no date: the same source makes the same table everywhere."""
    aml = (tables / "dsdt.dat").read_bytes()
    assert b"/" not in aml and str(ROOT).encode() not in aml


def test_label_areas(tables):
    """The NVDIMMs' label storage areas lie where the hypervisor has them."""
    layout = {name: int(value, 0) for name, value in re.findall(
        r"^#define (\w+)\s+(0x[0-9a-f]+|\d+)\b", (ROOT / "hv/pmem/pmem_layout.h").read_text(),
        re.M)}
    iasl("-d", "dsdt.dat", cwd=tables)
    listing = (tables / "dsdt.dsl").read_text()
    areas = re.findall(r"_ADR, (\w+)\).*?LREA \((0x\w+),.*?LWRI \((0x\w+),", listing, re.S)
    numbers = {"One": 1}
    assert [(numbers.get(a) or int(a, 16), int(r, 16), int(w, 16)) for a, r, w in areas] == [
        (n + 1, *[layout["PMEM_LABELS_BASE"] + n * layout["PMEM_LABELS_STRIDE"]] * 2)
        for n in range(layout["PMEM_REGIONS"])]


def evaluate(tables, *calls):
    """What acpiexec says that these methods return: a number, bytes, or a list of them."""
    script = "".join(f"evaluate {call}\n" for call in calls) + "quit\n"
    done = subprocess.run(["acpiexec", "dsdt.dat"], cwd=tables, input=script, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = []
    for text in re.split(r"^(?:- )?Evaluating ", done.stdout, flags=re.M)[1:]:
        assert "Error" not in text, text
        values = []
        for value in re.finditer(r"\[Integer\] = (\w+)|\[Buffer\] Length (\w+) =", text):
            if value[1]:
                values.append(int(value[1], 16))
            else:
                lines = re.findall(r"[0-9A-F]{4}: ((?:[0-9A-F]{2} )+)", text[value.end():])
                values.append(bytes.fromhex("".join(lines))[:int(value[2], 16)])
        found.append(values if "[Package]" in text else values[0])
    assert len(found) == len(calls), done.stdout
    return found


def hexes(data):
    return "(" + " ".join(f"{byte:02x}" for byte in data) + ")"


def test_label_methods(tables):
    """Labels are read and written by _LSI, _LSR and _LSW, and by what Linux and ndctl ask for,
    Intel's _DSM: each sees what the other wrote, and nothing outside the area is touched."""
    uuid = hexes(uuid_.UUID("4309ac30-0d11-11e4-9191-0800200c9a66").bytes_le)
    nvdimm = r"\_SB.NVDR.NV01"

    def dsm(function, *numbers, data=b""):
        argument = hexes(b"".join(n.to_bytes(4, "little") for n in numbers) + data)
        return f"{nvdimm}._DSM {uuid} 1 {function} [{argument if numbers or data else 0}]"

    def answer(*numbers):
        return b"".join(n.to_bytes(4, "little") for n in numbers)

    area, most = 0x20000, 0x400
    one, two = bytes(range(1, 8)), bytes(range(0x80, 0x90))
    calls = [
        (f"{nvdimm}._LSI", [0, area, most]),
        (dsm(0), b"\x71"),
        (dsm(4), answer(0, area, most)),
        (f"{nvdimm}._LSW 2 7 {hexes(one)}", 0),
        (dsm(5, 0, 12), answer(0) + bytes(2) + one + bytes(3)),
        (dsm(6, 4, 16, data=two), answer(0)),
        (f"{nvdimm}._LSR 0 24", [0, bytes(2) + one[:2] + two + bytes(4)]),
        # The last bytes there are, and one more.
        (dsm(5, area - 8, 8), answer(0) + bytes(8)),
        (dsm(5, area - 8, 9), answer(3)),
        (dsm(5, 0xfffffffc, 8), answer(3)),
        (dsm(5, 0, most + 1), answer(3)),
        (dsm(6, area - 1, 2, data=b"12"), answer(3)),
        (dsm(6, 0, 8, data=b"1234567"), answer(3)),
        (dsm(5, data=b"1234567"), answer(3)),
        (f"{nvdimm}._LSW {area - 1} 2 (31 32)", 2),
        (f"{nvdimm}._LSW 0 8 (31)", 2),
        (dsm(7), answer(1)),
        (dsm(1), answer(1)),
        (f"{nvdimm}._DSM (30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f) 1 0 [0]", b"\0"),
        (f"{nvdimm}._LSR 0 24", [0, bytes(2) + one[:2] + two + bytes(4)]),
    ]
    for (call, expected), got in zip(calls, evaluate(tables, *[call for call, _ in calls])):
        assert got == expected, f"{call}: {got}"


def test_devices(tables):
    """Addresses and interrupts of the devices are those of the layout's header."""
    layout = {name: int(value, 0) for name, value in re.findall(
        r"^#define (\w+)\s+(0x[0-9a-f]+|\d+)\b", (ROOT / "hv/dev/acpi_layout.h").read_text(),
        re.M)}
    iasl("-d", "dsdt.dat", cwd=tables)
    listing = (tables / "dsdt.dsl").read_text()
    devices = re.findall(r"LNRO0005.*?Memory32Fixed.*?(0x\w+),.*?(0x\w+),.*?Interrupt.*?(0x\w+),",
                         listing, re.S)
    expected = [(layout["VIRTIO_MMIO_BASE"] + n * layout["VIRTIO_MMIO_STRIDE"],
                 layout["VIRTIO_MMIO_STRIDE"], layout["VIRTIO_MMIO_GSI"] + n)
                for n in range(layout["VIRTIO_MMIO_COUNT"])]
    assert [tuple(int(x, 16) for x in device) for device in devices] == expected
    assert listing.count('"ACPI0007"') == 16
