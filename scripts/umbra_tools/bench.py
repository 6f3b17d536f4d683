"""scripts/bench: what operations cost, as a table and as build/bench.json."""

import argparse
import json
import pathlib
import re
import struct
import tempfile

from . import bench_linux, bench_pager, bench_pmem, bench_remote, emulator
from .base import BUILD, ROOT, Failure, build, main, say
from .config import Config
from .disk import image_for
from .results import BENCH
from .run import for_emulator

CONFIG = ROOT / "guest" / "bench.conf"
CPU = "corei7_skylake_x"
TWO_CPUS = ("ipi.other_vcpu",)  # measured on two; everything else on one
TIMEOUT = 300

# Linux 6.1 KVM with QEMU, as the hypervisor inside the same Bochs, instructions per operation.
KVM = {"exit.cpuid": 1349, "exit.vmcall": 3206, "exit.port_in": 1302, "exit.wrmsr": 1678,
       "exit.self_ipi": 5638, "exit.tscdeadline": 5281}

EXPECTED = ["exit.cpuid", "exit.vmcall", "exit.port_in", "exit.port_out_uart", "exit.rdmsr",
            "exit.wrmsr", "exit.xapic_read", "exit.self_ipi", "exit.tscdeadline", "ept.fresh_page",
            "ipi.other_vcpu", "size.image_bytes", "size.hv_memory_bytes", "boot.instructions"]
FLUSH = [f"pmem.flush.{mode}.{n}" for mode in ("none", "direct", "trap") for n in (1, 2, 4, 8)]
# Four modelled NVDIMMs, in a machine of their own: their memory is not the other figures'.
FLUSH_VM = {"pmem": ", ".join(f"model 2M {n}" for n in (1, 2, 4, 8)), "cmdline": "flush"}
LINUX = bench_linux.FIGURES + bench_linux.PARTS


def image_bytes(path):
    """Bytes of the hypervisor's code and data: what the loader copies to memory."""
    data = pathlib.Path(path).read_bytes()
    phoff, = struct.unpack_from("<Q", data, 32)
    size, number = struct.unpack_from("<HH", data, 54)
    total = 0
    for i in range(number):
        kind, = struct.unpack_from("<I", data, phoff + i * size)
        filesz, = struct.unpack_from("<Q", data, phoff + i * size + 32)
        total += filesz if kind == 1 else 0
    return total


def measure(emulator_name, cpu, cpus, settings=()):
    """{name: (value, unit)} of one boot."""
    config = Config.load(CONFIG)
    config.set("vm bench", "vcpus", cpus)
    for key, value in dict(settings).items():
        config.set("vm bench", key, value)
    for_emulator(config, emulator_name)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="bench.") as folder:
        folder = pathlib.Path(folder)
        image = image_for(config, folder / "umbra.img")
        session = emulator.Session(emulator.Machine(emulator_name, cpu, cpus), image, folder)
        session.run(TIMEOUT)
    if session.reason != "end" or session.status not in (0, 1):
        log = emulator.plain(bytes(session.log)).rstrip().split("\n")[-20:]
        raise Failure("\n".join([*log, *emulator.loader_messages(session.console),
                                 f"the benchmark did not end well: {session.reason}, "
                                 f"status {session.status}"]))
    console = emulator.plain(bytes(session.console))
    found = re.findall(r"^bench (\S+) (\d+) (\S+)$", console, re.M)
    found += BENCH.findall(emulator.plain(bytes(session.log)))
    return {name: (int(value), unit) for name, value, unit in found}


def bench(arguments):
    p = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure what operations cost in Bochs, in emulated instructions as the guest "
                    "sees them, and write build/bench.json. size.image_bytes: code and data of the "
                    "hypervisor; size.hv_memory_bytes: memory that it keeps for itself; "
                    "boot.instructions: from the loader's first to the first guest instruction. "
                    "pmem.flush.MODE.N: what a store to a flush hint costs more than one to "
                    "memory, with N memory controllers. "
                    "remote.*: pages on a memory node (scripts/umbra_tools/bench_pager.py). "
                    "linux.*_ratio: instructions that Debian's kernel takes to its shell, and two "
                    "loops in it, under Umbra and without it; linux.boot_exits: VM exits on the "
                    "way to the shell. Those are four boots of Linux, some minutes.")
    p.add_argument("--emulator", choices=("bochs", "bochs3"),
                   help="default: bochs, which is 2.7 on Debian 12, the reference")
    p.add_argument("--cpu", metavar="MODEL", default=CPU, help=f"default {CPU}")
    p.add_argument("--output", metavar="F", type=pathlib.Path,
                   help="default build/bench.json, with --only build/bench-remote.json "
                        "or bench-pmem.json")
    p.add_argument("--no-build", action="store_true", help="measure what is built already")
    p.add_argument("--no-linux", action="store_true", help="without the figures linux.*")
    p.add_argument("--no-remote", action="store_true", help="without the figures remote.*")
    p.add_argument("--only", choices=("pmem.fsync", "remote", "remote.vs_nbd"),
                   help="these figures only; remote.vs_nbd: Linux with memory on another host, as a guest of Umbra "
                        "and alone with swap over NBD. Three boots, half an hour; not in a plain run. "
                        "Nor is pmem.fsync: what a write of 4 KiB and fsync() take in Linux on a modelled "
                        "NVDIMM and on a virtio disk")
    options = p.parse_args(arguments)
    products = {"umbra.elf": "all"}
    if options.only == "remote.vs_nbd" or not (options.only or options.no_linux):
        products["bare/BOOTX64.EFI"] = "bare"
    if options.only == "remote.vs_nbd":
        products["memnode"] = "memnode"
    if not options.no_build:
        build(*products.values())
    elif missing := [target for file, target in products.items() if not (BUILD / file).exists()]:
        raise Failure(f"not built yet: make {' '.join(missing)}, or leave --no-build out")
    BUILD.mkdir(parents=True, exist_ok=True)
    options.output = options.output or BUILD / (
        f"bench-{options.only.split('.')[0]}.json" if options.only else "bench.json")
    name = options.emulator or "bochs"
    version = emulator.host_bochs_version(emulator.bochs_program(name))
    if not version.startswith("2.7"):
        say(f"Bochs {version}: the reference figures are those of 2.7")

    if options.only:
        which = {"pmem.fsync": bench_pmem, "remote": bench_pager,
                 "remote.vs_nbd": bench_remote}[options.only]
        figures = which.measure(name, options.cpu)
        show(version, options, figures, list(figures))
        complain(figures, which.FIGURES)
        return 0
    one = measure(name, options.cpu, 1)
    two = measure(name, options.cpu, 2)
    figures = {k: v for k, v in one.items() if k not in TWO_CPUS}
    figures.update({k: v for k, v in two.items() if k in TWO_CPUS})
    flush = measure(name, options.cpu, 1, FLUSH_VM)
    figures.update({k: v for k, v in flush.items() if k in FLUSH})
    figures["size.image_bytes"] = (image_bytes(BUILD / "umbra.elf"), "bytes")
    expected = EXPECTED + FLUSH
    if not options.no_remote:
        figures.update(bench_pager.measure(name, options.cpu))
        expected += bench_pager.FIGURES
    if not options.no_linux:
        figures.update(bench_linux.measure(name, options.cpu))
        expected += LINUX
    order = [k for k in expected if k in figures] + sorted(set(figures) - set(expected))

    show(version, options, figures, order)
    complain(figures, expected)
    return 0


def complain(figures, expected):
    if missing := [k for k in expected if k not in figures]:
        raise Failure(f"not measured: {', '.join(missing)}")


def show(version, options, figures, order):
    """Print the table and write the file."""
    print(f"Bochs {version}, {options.cpu}\n")
    width = max([24, *map(len, order)])
    print(f"{'':{width}}{'value':>14}  {'unit':14}{'Linux 6.1 KVM':>14}")
    for key in order:
        value, unit = figures[key]
        kvm = f"{KVM[key]:,}" if key in KVM else ""
        shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        print(f"{key:{width}}{shown:>14}  {unit:14}{kvm:>14}".rstrip())
    options.output.write_text(json.dumps(
        [{"name": k, "value": figures[k][0], "unit": figures[k][1]} for k in order], indent=1) + "\n")
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main(bench)
