"""The guests' ACPI tables in the eyes of iasl: it made the AML without a remark, and takes every
table that the hypervisor builds apart without a complaint."""

import os
import re
import subprocess

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
