"""scripts/bench: what remote memory costs, from the log's counters at the end of guest/remote.c.

remote.fault.KIND: instructions of Umbra for each page that is read: the way from the EPT violation to
the posted READ, and all that the network's service does until the page is mapped, without the time in
which nothing happens. Pages are hardly ever written meanwhile. remote.evict: instructions for each
page that is evicted while all of memory is filled. remote.prefetch.ORDER.coverage: how many per cent of
the pages that were read had been fetched ahead and were touched; .accuracy: how many of those that were
fetched ahead. remote.slowdown_50_local: a workload with locality, half of whose memory is here, against
all of it (emulated time, in which Bochs' NIC takes one frame a millisecond).
"""

import pathlib
import re
import tempfile

from . import emulator
from .base import BUILD, Failure
from .config import Config
from .disk import image_for
from .memnodes import IPS, MemoryNodes
from .run import for_emulator

TIMEOUT = 300
MIB = 3  # that the guest uses, of 6
ORDERS = ("sequential", "threes", "random")
FIGURES = (["remote.fault.plain", "remote.fault.sealed", "remote.evict"]
           + [f"remote.prefetch.{order}.{what}" for order in ORDERS
              for what in ("coverage", "accuracy")]
           + ["remote.slowdown_50_local"])


def _boot(emulator_name, cpu, order, rounds, **settings):
    """({counter: number} of the log, instructions for each visit)."""
    config = Config(name="remote", folder=BUILD)
    vm = {"kernel": str(BUILD / "guest/remote.elf"), "memory": "6M", "local": "2M",
          "remote": "10.77.0.2", "cmdline": f"mib={MIB} only={order} rounds={rounds}", **settings}
    for key, value in vm.items():
        config.set("vm remote", key, value)
    with MemoryNodes(config, lambda _: 32) as nodes, \
            tempfile.TemporaryDirectory(dir=BUILD, prefix="bench.") as folder:
        for_emulator(config, emulator_name)
        folder = pathlib.Path(folder)
        image = image_for(config, folder / "umbra.img")
        machine = emulator.Machine(emulator_name, cpu, 1, nic=nodes.nic, ips=IPS)
        session = emulator.Session(machine, image, folder)
        session.run(TIMEOUT)
    log = emulator.plain(bytes(session.log))
    if session.reason != "end" or session.status != 1:
        raise Failure("\n".join([*log.split("\n")[-20:], f"remote.{order} did not end well: "
                                 f"{session.reason}, status {session.status}"]))
    found = {name: int(value) for line in re.findall(r"remote memory: (.*)", log)
             for value, name in re.findall(r"(\d+) (?:pages )?([a-z ]+?)(?=,|$| of \d)", line)}
    visit = re.search(r"^bench remote\.\S+ (\d+) ", emulator.plain(bytes(session.console)), re.M)
    return found, int(visit[1])


def measure(emulator_name, cpu):
    """{name: (value, unit)}."""
    figures = {}
    for kind, seal in ("plain", "no"), ("sealed", "yes"):
        found, _ = _boot(emulator_name, cpu, "random", 6, seal=seal, prefetch="no")
        figures[f"remote.fault.{kind}"] = (
            (found["faults"] + found["network"]) // found["read"], "instructions")
    evicted = found["written"] + found["dropped"]
    figures["remote.evict"] = (found["evicting"] // evicted, "instructions")
    for order in ORDERS:
        found, _ = _boot(emulator_name, cpu, order, 3)
        figures[f"remote.prefetch.{order}.coverage"] = (
            100 * found["of use"] // max(found["read"], 1), "%")
        figures[f"remote.prefetch.{order}.accuracy"] = (
            100 * found["of use"] // max(found["fetched ahead"], 1), "%")
    half, whole = (_boot(emulator_name, cpu, "local", 6, memory="8M", local=local,
                         cmdline="mib=6 only=local rounds=20")[1] for local in ("4M", "8M"))
    figures["remote.slowdown_50_local"] = (half / whole, "ratio")
    return figures
