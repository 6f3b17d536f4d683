"""What a fault on a page of remote memory costs, instruction by instruction: Bochs' debugger stops the
machine at one of them and prints every instruction from there on.

A fault is what Umbra executes from the VM exit to the entry that lets the guest go on, on the way of a
page that had to be read. Of the rounds of the network's service those in which nothing has come are
the wait for the wire; they, and the loop around them with its looks at the consoles, are left out.
Evicting pages is counted apart, and so is the rest of Umbra's work at that time: other exits, and the
guest's timers, which come due meanwhile.
"""

import collections
import re

from .base import BUILD, Failure
from .symbols import Symbols, from_elf

HYPERVISOR = 0xffffffff80000000  # and above
LINE = re.compile(r"^\(0\)\.\[(\d+)\] \[\S+\] \S+?:([0-9a-f]{16}) \(.*?\): (\w+)", re.M)
# Functions that belong to something else than the fault, with all that they call.
APART = {"remote_evict": "evicting", "sched_tick": "rest", "console_poll": "idle"}
ROUND, WORK = "remote_poll", {"roce_take", "fabric_take", "fabric_receive"}


def _symbols():
    return Symbols(from_elf((BUILD / "umbra.debug").read_bytes()))


def commands(faults, instructions):
    """For Bochs' debugger: prints so many instructions from the given number of a fault on."""
    start = next(address for address, name in _symbols().entries if name == "remote_fault")
    return f"lb {start:#x}\n" + "c\n" * (faults + 1) + f"d 1\ntrace on\ns {instructions}\nq\n"


def _steps(text):
    """(instructions that it counts for, function, whether this is its first one, mnemonic)"""
    symbols = _symbols()
    names, before = {}, None
    for match in LINE.finditer(text):
        address = int(match[2], 16)
        if address not in names:
            name = symbols.name(address) if address >= HYPERVISOR else ""
            names[address] = name.partition("+")[0], "+" not in name and bool(name)
        tick = int(match[1])
        if before:
            yield (tick - before[0], *before[1:])
        before = tick, *names[address], match[3]


class _Exit:
    """What happens between an exit and the next entry."""

    def __init__(self):
        self.depth, self.inside, self.until = 0, None, 0
        self.waited, self.arrived, self.polled = False, False, False
        self.part = collections.Counter()  # fault, evicting, rest, idle
        self.function = collections.Counter()
        self.open = []  # of the fault, if something more arrives or nothing more is polled for

    def step(self, count, name, first, mnemonic):
        if first and not self.inside and (name in APART or name == ROUND):
            self.inside, self.until, self.arrived = name, self.depth, False
            if name == ROUND:
                self._close(idle=self.polled)
                self.polled = True
        self.waited |= first and name == "sched_await"
        self.arrived |= name in WORK
        if self.inside in APART:
            self.part[APART[self.inside]] += count
        else:
            self.open.append((count, name))
        self.depth += (mnemonic == "call") - (mnemonic == "ret")
        if self.inside and self.depth < self.until:
            if self.inside == ROUND:
                self._close(idle=not self.arrived)
            self.inside = None

    def _close(self, idle=False):
        for count, name in self.open:
            self.part["idle" if idle else "fault"] += count
            if not idle:
                self.function[name] += count
        self.open = []

    def end(self):
        self._close()


def count(text):
    """({part: instructions for each page that was waited for}, [(function, instructions)]), of a
    trace."""
    parts, functions, pages, now = collections.Counter(), collections.Counter(), 0, None
    for number, name, first, mnemonic in _steps(text):
        if not name:
            if now:
                now.end()
                pages += now.waited
                if now.waited:
                    parts += now.part
                    functions += now.function
                else:
                    parts["rest"] += sum(now.part.values())
            now = None
        elif now or name == "vmx_exit":
            now = now or _Exit()
            now.step(number, name, first, mnemonic)
    if not pages:
        raise Failure("the trace has no fault that waited for its page")
    return ({name: parts[name] // pages for name in ("fault", "evicting", "rest")},
            [(name, n / pages) for name, n in functions.most_common()])
