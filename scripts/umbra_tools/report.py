"""scripts/run --report: the reports that Umbra writes to its log, collected and made a page.

docs/report-format.md describes the lines. What does not fit is said on the page, and the rest shown.
"""

import dataclasses
import pathlib
import re
import zlib

from . import report_page, symbols
from .base import Failure, say

VERSION = 1
GAUGES = 6  # pages here, pages away; so far: faults, pages read, pages written, prefetches of use
REMOTE = {"remote": ("pages", "frames", "free", "away", "nodes", "up", "replicas", "sealed", "stalled"),
          "paging": ("faults", "minor", "zero", "waits", "overwritten", "kept", "tables", "noframe",
                     "reads", "writes", "drops", "zeroes"),
          "store": ("in", "out", "failovers", "corrupt", "copied", "lacking", "ahead", "used", "late",
                    "wasted")}
PREFIX = "@R "
PROBLEMS = 20  # lines that make no sense are quoted up to this number
LINE = re.compile(r"@R (.*) \*([0-9a-f]{4})", re.ASCII)


class Damaged(ValueError):
    """A line that is intact by its check, and yet cannot be understood."""


@dataclasses.dataclass
class Cost:
    """What exits of one reason cost: TSC ticks in root mode."""
    sum: int = 0
    max: int = 0
    at: int = 0  # RIP of the dearest
    histogram: dict = dataclasses.field(default_factory=dict)  # {bits of the cost: exits}


@dataclasses.dataclass
class Hot:
    at: int
    reason: int
    weight: int
    error: int
    other: int


@dataclasses.dataclass
class Last:
    tsc: int
    reason: int
    rip: int
    q: int
    detail: int
    cost: int


@dataclasses.dataclass
class Vcpu:
    index: int
    cpu: int = 0
    counters: dict = dataclasses.field(default_factory=dict)
    exits: dict = dataclasses.field(default_factory=dict)  # {reason: number}
    start: int = 0  # TSC ticks since Umbra's start
    interval: int = 0  # TSC ticks; 0: no samples
    samples: dict = dataclasses.field(default_factory=dict)  # {i: {reason: number}}
    root: dict = dataclasses.field(default_factory=dict)  # {i: ticks}
    costs: dict = dataclasses.field(default_factory=dict)  # {reason: Cost}
    hot: dict = dataclasses.field(default_factory=dict)  # {"exits", "ticks", "page": [Hot]}
    last: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Remote:
    """Memory on memory nodes."""
    counters: dict = dataclasses.field(default_factory=dict)
    latency_sum: int = 0  # ns
    latency: dict = dataclasses.field(default_factory=dict)  # {n: waits below 2^n us}
    nodes: list = dataclasses.field(default_factory=list)  # [{ip, up, slots, taken}]
    gauges: dict = dataclasses.field(default_factory=dict)  # {i: [value of each of GAUGES]}


@dataclasses.dataclass
class Report:
    """One VM's, from `begin` to `end`."""
    vm: str
    run: int = 0
    why: str = ""
    status: int = 0
    memory: int = 0
    tsc_hz: int = 1
    now: int = 0
    vcpus: dict = dataclasses.field(default_factory=dict)  # {index: Vcpu}
    reasons: dict = dataclasses.field(default_factory=dict)  # {id: (name, what `detail` is)}
    remote: Remote = None
    lines: int = 0  # that have arrived whole
    expected: int = None  # that were sent, by the last of them

    def vcpu(self, fields):
        index = number(fields, "n")
        if index > 255:
            raise Damaged(f"vCPU {index}")
        return self.vcpus.setdefault(index, Vcpu(index))

    def away(self):
        self.remote = self.remote or Remote()
        return self.remote

    def problem(self):
        """What is wrong with what arrived, or None."""
        if self.expected is None:
            wrong = "its end is missing"
        elif self.expected > self.lines:
            wrong = f"{self.expected - self.lines} of {self.expected} lines are missing"
        else:
            return None
        return f"the report of VM {self.vm} is incomplete: {wrong}"


def number(fields, key, base=10):
    text = fields.get(key, "")
    if not re.fullmatch(r"\d{1,20}" if base == 10 else r"[0-9a-f]{1,16}", text, re.ASCII):
        raise Damaged(f"{key}={text[:20]}" if text else f"no {key}")
    return int(text, base)


def sample_number(fields):
    i = number(fields, "i")
    if i > 255:  # there are 128 at most
        raise Damaged(f"i={i}")
    return i


def numbers(fields, cls, **bases):
    """An object of class `cls` from fields of the same names."""
    return cls(**{f.name: number(fields, f.name, bases.get(f.name, 10))
                  for f in dataclasses.fields(cls)})


def pairs(words):
    """{a: b} of words a:b."""
    found = {}
    for word in words:
        m = re.fullmatch(r"(\d{1,3}):(\d{1,20})", word, re.ASCII)
        if not m:
            raise Damaged(word)
        found[int(m[1])] = int(m[2])
    return found


class Parser:
    def __init__(self):
        self.reports, self.problems = [], []
        self.open = {}  # {VM's number: Report}: those of several VMs alternate
        self.stray = 0  # lines of no report
        self.damaged = 0  # lines of nobody knows which

    def take(self, line):
        """One line that begins with PREFIX."""
        m = LINE.fullmatch(line)
        if not m or zlib.crc32(m[1].encode(errors="replace")) & 0xffff != int(m[2], 16):
            self.damaged += 1
            return
        words = m[1].split()
        vm, kind = [*words[:2], "", ""][:2]
        fields = dict(w.split("=", 1) for w in words[2:] if "=" in w)
        rest = [w for w in words[2:] if "=" not in w]
        try:
            if kind == "begin":
                self.begin(vm, fields)
            elif vm not in self.open:
                self.stray += 1
            else:
                self.open[vm].lines += 1
                if kind == "reason":
                    fields["name"] = m[1].partition(" name=")[2]
                self.item(vm, kind, fields, rest)
        except Damaged as why:
            if len(self.problems) < PROBLEMS:
                self.problems.append(f"a report's line does not make sense ({why}): {line[:80]}")

    def begin(self, vm, fields):
        self.close(vm)
        version = number(fields, "version")
        if version != VERSION:
            raise Damaged(f"version {version}, expected {VERSION}")
        self.open[vm] = Report(fields.get("vm", "?"), number(fields, "run"), fields.get("why", ""),
                               number(fields, "status"), number(fields, "memory"),
                               max(1, number(fields, "tsc_hz")), number(fields, "now"), lines=1)
        self.reports.append(self.open[vm])

    def item(self, vm, kind, fields, rest):
        report = self.open[vm]
        if kind == "end":
            report.expected = number(fields, "lines")
            self.close(vm)
        elif kind == "reason":
            report.reasons[number(fields, "id")] = (fields["name"], fields.get("detail", ""))
        elif kind in REMOTE:
            report.away().counters.update({key: number(fields, key) for key in REMOTE[kind]})
        elif kind == "latency":
            report.away().latency_sum = number(fields, "sum")
            report.remote.latency.update(pairs(rest))
        elif kind == "node":
            report.away().nodes.append({key: number(fields, key)
                                        for key in ("ip", "up", "slots", "taken")})
        elif kind == "gauge":
            values = pairs(rest)
            report.away().gauges[sample_number(fields)] = [values.get(n, 0) for n in range(GAUGES)]
        elif kind == "vcpu":
            vcpu = report.vcpu(fields)
            vcpu.cpu = number(fields, "cpu")
            vcpu.counters = {key: number(fields, key) for key in (
                "exits", "run", "halted", "root", "watched", "injections", "faults", "refusals")}
        elif kind == "exits":
            report.vcpu(fields).exits.update(pairs(rest))
        elif kind == "time":
            vcpu = report.vcpu(fields)
            vcpu.start, vcpu.interval = number(fields, "start"), number(fields, "interval")
        elif kind == "sample":
            vcpu, i = report.vcpu(fields), sample_number(fields)
            vcpu.root[i] = number(fields, "root")
            vcpu.samples.setdefault(i, {}).update(pairs(rest))
        elif kind == "cost":
            cost = report.vcpu(fields).costs.setdefault(number(fields, "reason"), Cost())
            cost.sum, cost.max = number(fields, "sum"), number(fields, "max")
            cost.at = number(fields, "at", 16)
            cost.histogram.update(pairs(rest))
        elif kind == "hot":
            hot = report.vcpu(fields).hot.setdefault(fields.get("by", ""), [])
            hot.append(numbers(fields, Hot, at=16))
        elif kind == "last":
            report.vcpu(fields).last.append(numbers(fields, Last, rip=16, q=16, detail=16))
        else:
            raise Damaged(f"unknown kind {kind}")

    def close(self, vm):
        """The report of this VM is over, be it that another one begins."""
        if (report := self.open.pop(vm, None)) and (problem := report.problem()):
            self.problems.append(problem)

    def finish(self):
        for vm in list(self.open):
            self.close(vm)
        if self.damaged:
            self.problems.append(f"{self.damaged} damaged line(s)")
        if self.stray:
            self.problems.append(f"{self.stray} line(s) belong to no report: its beginning is lost")


def parse(lines):
    """(reports, problems) of the log lines that begin with PREFIX."""
    parser = Parser()
    for line in lines:
        parser.take(line)
    parser.finish()
    # A later one of the same run of a VM (the monitor asks for them) replaces an earlier one.
    return list({(r.vm, r.run): r for r in parser.reports}.values()), parser.problems


class Filter:
    """Stands before whoever shows the log as it comes: report lines are left out. Pieces arrive as
    they happen to; an unfinished line is held back only while it may be one of the report's."""

    def __init__(self, show):
        self.show, self.held, self.passing = show, b"", False

    def __call__(self, data):
        shown, prefix = b"", PREFIX.encode()
        for piece in re.findall(rb"[^\n]*\n|[^\n]+", data):
            if self.passing:
                shown += piece
            else:
                self.held += piece
                if not self.held.startswith(prefix) and not prefix.startswith(self.held):
                    shown += self.held
                    self.held, self.passing = b"", True
            if piece.endswith(b"\n"):
                self.held, self.passing = b"", False
        if shown and self.show:
            self.show(shown)


class Wanted:
    """A report that scripts/run is to make. Created before the configuration's paths change."""

    def __init__(self, path, config):
        self.path = pathlib.Path(path)
        config.set("umbra", "report", "yes")
        self.kernels = {}
        for index, section, key, value in list(config.entries()):
            if section.startswith("vm ") and key == "kernel":
                self.kernels[section[3:]] = (config.host_path(value, index),
                                             config.get(section, "cmdline", ""))

    def write(self, session, config, machine):
        """After the run: take the report's lines out of session.log and write the page."""
        lines, rest = split(bytes(session.log))
        session.log[:] = rest
        reports, problems = parse(lines)
        if not reports:
            problems.append("no report arrived: a VM's is written when it ends"
                            + (", and time was up before" if session.reason == "timeout" else ""))
        missing = [vm for vm in self.kernels if vm not in {r.vm for r in reports}]
        tables = {}
        for vm, (kernel, cmdline) in self.kernels.items():
            tables[vm] = symbols.load(kernel, cmdline)
        log = rest.decode(errors="replace").replace("\r", "")
        about = [("Emulator", machine.emulator + (f", {machine.cpu}" if machine.cpu else "")),
                 ("Machine", f"{machine.cpus} CPU(s), {machine.memory} MiB")]
        about += found(log)
        if reports and missing:
            about.append(("Without a report", ", ".join(missing) + ": had not ended"))
        page = report_page.page(reports, problems, about, config.text(), tables)
        try:
            self.path.write_text(page)
        except OSError as error:
            raise Failure(f"--report {self.path}: {error.strerror}") from None
        for problem in problems:
            say(f"report: {problem}")
        say(f"report written to {self.path}")


def found(log):
    """What the log says about versions and the processor: (label, text)."""
    lines = [re.sub(r"^\[[^]]*\] ", "", line) for line in log.split("\n")]
    about = [("Version", line) for line in lines if re.match(r"Umbra \d", line)][:1]
    about += [("Processor", line) for line in lines if re.search(r"\(family \d", line)][:1]
    return about + [("Clock", line) for line in lines if re.match(r"TSC [\d.]+ MHz", line)][:1]


def split(log):
    """(report lines as text, the rest as bytes) of a log."""
    lines, rest = [], []
    for line in re.findall(rb"[^\n]*\n|[^\n]+", log):
        if line.startswith(PREFIX.encode()):
            lines.append(line.decode(errors="replace").rstrip("\r\n"))
        else:
            rest.append(line)
    return lines, b"".join(rest)
