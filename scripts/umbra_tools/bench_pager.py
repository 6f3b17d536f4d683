"""scripts/bench: what remote memory costs, with the guest kernel `remote`.

remote.fault.KIND: instructions of a fault that has to read its page (bench_fault.py); .evicting and
.rest: what Umbra executes besides for each of them, so that the three are all. remote.evict:
instructions for each sealed page that is written and goes, counted by TSC while memory is filled and
nothing is read: choice, invalidation, sealing, posting, and all rounds of the network's service that
send or receive something. remote.read.*, remote.write.*: frames and bytes on the wire for a page
that is read, and for one that is written (bench_wire.py). remote.prefetch.ORDER.coverage: how many
per cent of the pages that were read had been fetched ahead and were touched; .accuracy: how many of
those that were fetched ahead (0 if none was); .vain: those that were fetched and not touched, in per
cent of all that were read. remote.slowdown_50_local: a workload with locality, half of whose memory
is here, against all of it (emulated time, in which Bochs' NIC takes one frame a millisecond).
remote.async_pf.speedup: a thread that reads pages which are away, and another one that computes for as
long: how many times sooner both have ended if the guest is told that a page travels.
"""

import pathlib
import re
import tempfile

from . import bench_fault, bench_wire, emulator
from .base import BUILD, Failure
from .config import Config
from .disk import image_for
from .memnodes import IPS, MemoryNodes
from .run import for_emulator

TIMEOUT = 300
MIB = 3  # that the guest uses, of 6
ORDERS = {"sequential": 3, "threes": 3, "random": 3, "chase": 1}  # and rounds
# With so many instructions a second a page takes 200,000. Where frames are counted another process
# passes them on, which takes real time: longer than Umbra would wait for them with fewer.
SLOW_WIRE = 10 * IPS
WIRE_ORDER = "chase"  # whose frames are counted
FAULT_AT, TRACE = 2500, 900000  # a fault amid the visits; instructions from there on
FIGURES = ([f"remote.fault.{kind}{part}" for kind in ("plain", "sealed")
            for part in ("", ".evicting", ".rest")]
           + ["remote.evict"]
           + [f"remote.{kind}.{what}.{way}" for kind in ("read", "write")
              for what in ("packets", "bytes") for way in ("sent", "received")]
           + [f"remote.prefetch.{order}.{what}" for order in ORDERS
              for what in ("coverage", "accuracy", "vain")]
           + ["remote.slowdown_50_local", "remote.async_pf.speedup"])


def _session(emulator_name, cpu, order, rounds, commands="c\n", wire=None, ips=IPS, **settings):
    """An emulator's session that has ended, and what the emulator itself has printed. wire: a
    dictionary for what bench_wire counts."""
    config = Config(name="remote", folder=BUILD)
    vm = {"kernel": str(BUILD / "guest/remote.elf"), "memory": "6M", "local": "2M",
          "remote": "10.77.0.2", "cmdline": f"mib={MIB} only={order} rounds={rounds}", **settings}
    for key, value in vm.items():
        config.set("vm remote", key, value)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench.") as folder:
        folder = pathlib.Path(folder)
        pcap = folder / "wire.pcap" if wire is not None else None
        with MemoryNodes(config, lambda _: 32, pcap) as nodes:
            for_emulator(config, emulator_name)
            image = image_for(config, folder / "umbra.img")
            machine = emulator.Machine(emulator_name, cpu, 1, nic=nodes.nic, ips=ips,
                                       commands=commands)
            session = emulator.Session(machine, image, folder)
            session.run(TIMEOUT)
        if pcap:
            wire.update(bench_wire.count(pcap, nodes.nic.mac))
        return session, (folder / "emulator.out").read_text(errors="replace")


def _boot(emulator_name, cpu, order, rounds, **settings):
    """({counter: number} of the log, {name: number} that the guest has measured)."""
    session, _ = _session(emulator_name, cpu, order, rounds, **settings)
    log = emulator.plain(bytes(session.log))
    if session.reason != "end" or session.status != 1:
        raise Failure("\n".join([*log.split("\n")[-20:], f"remote.{order} did not end well: "
                                 f"{session.reason}, status {session.status}"]))
    found = {name: int(value) for line in re.findall(r"remote memory: (.*)", log)
             for value, name in re.findall(r"(\d+) (?:pages )?([a-z ]+?)(?=,|$| of \d)", line)}
    measured = re.findall(r"^bench remote\.(\S+) (\d+) ",
                          emulator.plain(bytes(session.console)), re.M)
    return found, {name: int(value) for name, value in measured}


def _fault(emulator_name, cpu, seal):
    """bench_fault's parts; the functions go to a file of their own."""
    _, trace = _session(emulator_name, cpu, "random", 6, seal=seal, prefetch="no",
                        commands=bench_fault.commands(FAULT_AT, TRACE))
    parts, functions = bench_fault.count(trace)
    (BUILD / f"bench-fault-{'sealed' if seal == 'yes' else 'plain'}.txt").write_text(
        "".join(f"{number:9.1f} {name}\n" for name, number in functions))
    return parts


def measure(emulator_name, cpu):
    """{name: (value, unit)}."""
    figures = {}
    for kind, seal in ("plain", "no"), ("sealed", "yes"):
        for part, value in _fault(emulator_name, cpu, seal).items():
            name = f"remote.fault.{kind}" + ("" if part == "fault" else f".{part}")
            figures[name] = (value, "instructions")
    found, _ = _boot(emulator_name, cpu, "fill", 1, memory="8M", cmdline="mib=6 only=fill")
    if found["read"] * 50 > found["written"]:
        raise Failure("pages were read while memory was filled")
    figures["remote.evict"] = ((found["evicting"] + found["network"]) // found["written"],
                               "instructions")
    for order in ORDERS:
        wire = {} if order == WIRE_ORDER else None
        found, _ = _boot(emulator_name, cpu, order, ORDERS[order], wire=wire,
                         ips=IPS if wire is None else SLOW_WIRE)
        if wire:
            figures.update(bench_wire.figures(wire, "read", found["read"]))
            figures.update(bench_wire.figures(wire, "write", found["written"]))
        ahead, used, read = found["fetched ahead"], found["of use"], max(found["read"], 1)
        figures[f"remote.prefetch.{order}.coverage"] = (100 * used // read, "%")
        figures[f"remote.prefetch.{order}.accuracy"] = (100 * used // max(ahead, 1), "%")
        figures[f"remote.prefetch.{order}.vain"] = (round(100 * (ahead - used) / read, 1), "%")
    half, whole = (_boot(emulator_name, cpu, "local", 6, memory="8M", local=local,
                         cmdline="mib=6 only=local rounds=20")[1]["local"]
                   for local in ("4M", "8M"))
    figures["remote.slowdown_50_local"] = (half / whole, "ratio")
    _, ticks = _boot(emulator_name, cpu, "bench", 1, ips=SLOW_WIRE, memory="8M", prefetch="no",
                     kernel=str(BUILD / "guest/async_pf.elf"), async_pf="yes")
    figures["remote.async_pf.speedup"] = (
        round(ticks["async_pf.apart"] / ticks["async_pf.beside"], 2), "times")
    return figures
