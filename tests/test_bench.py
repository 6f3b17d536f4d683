"""scripts/bench: what it reads off consoles and logs, and that the bare machine's program builds."""

import os
import struct
import subprocess

import pytest

from umbra_tools import (bench, bench_linux, bench_pager, bench_pmem, bench_remote,
                         bench_wire)
from umbra_tools.base import BUILD, ROOT, Failure

BOOT = "[umbra: console of linux]\n540000000\nbench: end\n"
LOOPS = ("compute: 20000000 rounds, 1234567890123, 80400000 ticks\n"
         "memory: 32 MiB, 2 rounds, 201000000 ticks\nbench: end\n")


def fake_boot(calls):
    def boot(emulator_name, cpu, session, bare):
        calls.append((session, bare))
        if session == bench_linux.LOOPS:
            text = LOOPS.replace("80400000", "80000000").replace("201000000", "200000000")
            return (text if bare else LOOPS), ""
        if bare:
            return "bare: kernel entry at TSC 1000000000\n1500000000\nbench: end\n", ""
        return BOOT, "[    1.0 cpu0] vm linux: 7778 exits, 6 injections, 970 EPT violations\n"
    return boot


def test_linux_figures(monkeypatch):
    calls = []
    monkeypatch.setattr(bench_linux, "_boot", fake_boot(calls))
    figures = bench_linux.measure("bochs", "any")
    assert set(figures) == set(bench_linux.FIGURES + bench_linux.PARTS)
    assert figures["linux.boot_ratio"] == (1.08, "ratio")
    assert figures["linux.boot_exits"] == (7778, "exits")
    assert figures["linux.compute_ratio"] == (1.005, "ratio")
    assert figures["linux.memory_ratio"] == (1.005, "ratio")
    assert figures["linux.boot_bare"] == (500000000, "instructions")
    assert len(calls) == 4


def test_no_figure_is_an_error(monkeypatch):
    monkeypatch.setattr(bench_linux, "_boot", lambda *arguments: ("bench: end\n", ""))
    with pytest.raises(Failure, match="no figure for the boot under Umbra"):
        bench_linux.measure("bochs", "any")


def test_fsync_figures():
    text = "trap 250.5\r\nnone 500\nvirtio 125\n"
    figures = bench_pmem.figures_of(text)
    assert set(figures) == set(bench_pmem.FIGURES)
    assert figures["pmem.fsync_vs_virtio"] == (2.004, "ratio")
    assert figures["pmem.fsync_vs_virtio.none"] == (4.0, "ratio")
    assert figures["pmem.fsync.virtio"] == (400000, "instructions")
    for bad in ("trap 1\nnone 2\n", "trap 0\nnone 2\nvirtio 3\n", "trap x\nnone 2\nvirtio 3\n"):
        with pytest.raises(Failure, match="no figures for pmem.fsync"):
            bench_pmem.figures_of(bad)


def test_bare_builds():
    done = subprocess.run(["make", "-C", ROOT, "--no-print-directory", "-s",
                           f"BUILD={os.path.relpath(BUILD, ROOT)}", "bare"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (BUILD / "bare/BOOTX64.EFI").read_bytes()[:2] == b"MZ"


def test_remote_figures(monkeypatch, capfd):
    """Ratios of what the consoles say; a program that found wrong bytes has no figure."""
    def run(ticks):
        return lambda machine, config, bare: "".join(
            f"{name}: 256 MiB, 1 rounds, {ticks[bare] * (n + 1)} ticks\n"
            for n, name in enumerate(bench_remote.WORK))

    class Host:
        def __init__(self, *arguments, **options):
            pass

        __enter__ = lambda self: self
        __exit__ = node = lambda self, *arguments: None
        run = lambda self, command: (0, "")

    monkeypatch.setattr(bench_remote, "Linux", Host)
    monkeypatch.setattr(bench_remote, "_configuration", lambda *arguments: None)
    monkeypatch.setattr(bench_remote, "_run", run({False: 1000, True: 3500}))
    figures = bench_remote.measure("bochs", "any")
    assert figures["remote.vs_nbd.sort"] == (3.5, "times")
    assert figures["remote.nbd.random"] == (7000, "ticks")
    assert figures["remote.sealed.scan"] == (1000, "ticks")
    assert set(figures) == set(bench_remote.FIGURES)
    monkeypatch.setattr(bench_remote, "_run", lambda *arguments: "scan: WRONG page 5\n")
    assert not bench_remote.measure("bochs", "any")
    assert "no figure for scan" in capfd.readouterr().err


def test_remote_figures_are_kept(monkeypatch, capfd):
    """Of what takes half an hour, the figures of the boots that ended well."""
    def fails(*arguments):
        raise Failure("Linux did not end well")

    ticks = dict.fromkeys(bench_remote.WORK, 1000)
    monkeypatch.setattr(bench_remote, "SIDES", {"nbd": lambda *arguments: ticks, "umbra": fails,
                                                "sealed": lambda *arguments: ticks})
    figures = bench_remote.measure("bochs", "any")
    assert figures["remote.vs_nbd.sort_sealed"] == (1.0, "times")
    assert "remote.nbd.scan" in figures and "remote.vs_nbd.scan" not in figures
    assert "umbra: Linux did not end well" in capfd.readouterr().err
    with pytest.raises(Failure, match="not measured: remote.vs_nbd.scan, remote.umbra.scan,"):
        bench.complain(figures, bench_remote.FIGURES)


@pytest.mark.parametrize("arguments,missing", [
    ([], "make all bare,"), (["--no-linux"], "make all,"), (["--only", "remote"], "make all,"),
    (["--only", "remote.vs_nbd"], "make all bare memnode,")])
def test_nothing_built(monkeypatch, tmp_path, arguments, missing):
    """--no-build says at once what it lacks, not after the boots that need less."""
    monkeypatch.setattr(bench, "BUILD", tmp_path)
    with pytest.raises(Failure, match=missing):
        bench.bench(["--no-build", *arguments])


OURS, THEIRS = b"\x52\x54\0\x75\x6d\1", b"\2\0\0\0\0\2"


def roce_frame(opcode, source, length):
    start = bytes(6) + source + b"\x08\0" + b"\x45" + bytes(8) + b"\x11" + bytes(12) + b"\x12\xb7"
    return (start + bytes(4) + bytes([opcode])).ljust(length, b"\0")


def test_wire_figures(tmp_path):
    """Two pages that were read, one request twice; three that were written, with one answer for all."""
    write = [roce_frame(6, OURS, 1098), *[roce_frame(7, OURS, 1082)] * 2, roce_frame(8, OURS, 1082)]
    frames = [roce_frame(0x0c, OURS, 74)] * 3
    frames += [roce_frame(opcode, THEIRS, 1082) for opcode in (0x0d, 0x0e, 0x0e, 0x0f)] * 2
    frames += write * 3 + [roce_frame(0x11, THEIRS, 62)]
    (tmp_path / "wire").write_bytes(bytes(24) + b"".join(
        struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames))
    found = bench_wire.count(tmp_path / "wire", "52:54:00:75:6d:01")
    figures = {**bench_wire.figures(found, "read", 2), **bench_wire.figures(found, "write", 3)}
    assert {name: value for name, (value, _) in figures.items()} == {
        "remote.read.packets.sent": 1.5, "remote.read.packets.received": 4,
        "remote.read.bytes.sent": 111, "remote.read.bytes.received": 4328,
        "remote.write.packets.sent": 4, "remote.write.packets.received": 0.33,
        "remote.write.bytes.sent": 4344, "remote.write.bytes.received": 21}
    assert set(figures) <= set(bench_pager.FIGURES)
    for bad in ("read", 0), ("write", 0):
        with pytest.raises(Failure, match="no page went over the wire"):
            bench_wire.figures(found, *bad)
    found[None]["sent"][0] = 2
    with pytest.raises(Failure, match="2 of 26 frames carry no pages"):
        bench_wire.figures(found, "read", 2)


def test_pager_figures(monkeypatch):
    """An order in which nothing is fetched ahead has no pages fetched in vain either."""
    def boot(emulator_name, cpu, order, rounds, wire=None, **settings):
        assert (wire is None) == (order != "chase")
        if wire is not None:
            wire.update({kind: {"sent": [40, 400], "received": [40, 400]}
                         for kind in ("read", "write")})
            wire[None] = {"sent": [0, 0], "received": [0, 0]}
        ahead = {"sequential": 90, "threes": 50}.get(order, 0)
        return {"read": 1 if order == "fill" else 100, "written": 100, "evicting": 7000,
                "network": 3000, "fetched ahead": ahead, "of use": ahead * 4 // 5}, {
                    "local": 1000, "async_pf.apart": 150, "async_pf.beside": 100}

    monkeypatch.setattr(bench_pager, "_boot", boot)
    monkeypatch.setattr(bench_pager, "_fault",
                        lambda *arguments: {"fault": 1, "evicting": 2, "rest": 3})
    figures = bench_pager.measure("bochs", "any")
    assert set(figures) == set(bench_pager.FIGURES)
    assert figures["remote.evict"] == (100, "instructions")
    assert figures["remote.prefetch.sequential.coverage"] == (72, "%")
    assert figures["remote.prefetch.threes.accuracy"] == (80, "%")
    assert figures["remote.prefetch.threes.vain"] == (10.0, "%")
    assert figures["remote.prefetch.chase.vain"] == (0.0, "%")
    assert figures["remote.async_pf.speedup"] == (1.5, "times")
