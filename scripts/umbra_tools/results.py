"""What a run says: the log's report lines, and the guests' TAP on the console."""

import dataclasses
import re

from .emulator import plain

VM_ENDED = re.compile(r"umbra: vm (\S+) ended: (\d+)\b[ ]*(.*)")
BENCH = re.compile(r"umbra: bench (\S+) (\d+) (\S+)")
PASS_STATUS = (0, 1)  # power-off; value 0 written to isa-debug-exit, as test kernels do


@dataclasses.dataclass
class Tap:
    """One guest's test results."""
    plan: int = None
    points: list = dataclasses.field(default_factory=list)  # (passed, description, skip reason)
    bail: str = None
    lines: list = dataclasses.field(default_factory=list)  # the guest's whole output

    @property
    def passed(self):
        return sum(ok and skip is None for ok, _, skip in self.points)

    @property
    def failed(self):
        return [text for ok, text, _ in self.points if not ok]

    @property
    def skipped(self):
        return [f"{text}: {skip}" for _, text, skip in self.points if skip is not None]

    def problem(self):
        """Why these results are not a success, or None. A guest without TAP has nothing wrong."""
        if self.bail is not None:
            return f"bail out: {self.bail}"
        if self.failed:
            return "failed: " + "; ".join(self.failed)
        if self.points and self.plan is None:
            return "no plan: the guest stopped early"
        if self.plan is not None and self.plan != len(self.points):
            return f"{len(self.points)} of {self.plan} tests reported"
        return None


def parse_tap(lines):
    tap = Tap(lines=lines)
    for line in lines:
        if m := re.match(r"1\.\.(\d+)\b", line):
            tap.plan = int(m[1])
        elif m := re.match(r"(not )?ok\b\s*\d*\s*(?:-\s*)?(.*)", line):
            text, _, directive = m[2].partition(" # ")
            if m[2].startswith("# "):
                text, directive = "", m[2][2:]
            skip = re.match(r"SKIP\S*\s*(.*)", directive, re.I)
            tap.points.append((not m[1], text.strip(), skip[1] if skip else None))
        elif m := re.match(r"Bail out!\s*(.*)", line):
            tap.bail = m[1]
    return tap


def guest_output(console, names):
    """{VM name: its lines}. With several VMs each line carries its VM's name and a bar."""
    text = plain(bytes(console))
    if len(names) == 1:
        lines = text.split("\n")
        starts = [i for i, line in enumerate(lines) if "umbra-loader:" in line or "BdsDxe:" in line]
        return {names[0]: lines[starts[-1] + 1 if starts else 0:]}
    output = {name: [] for name in names}
    for line in text.split("\n"):
        name, bar, rest = line.partition("| ")
        if not bar and line.endswith("|"):
            name, bar = line[:-1], "|"
        if bar and name in output:
            output[name].append(rest)
    return output


@dataclasses.dataclass
class VmResult:
    name: str
    status: int = None  # None: the VM never ended
    reason: str = ""
    tap: Tap = dataclasses.field(default_factory=Tap)

    def problem(self):
        if self.status is None:
            return "did not end"
        if self.status not in PASS_STATUS and not self.tap.failed:
            return f"ended with status {self.status} {self.reason}".rstrip()
        return self.tap.problem()


def vm_results(names, console, log):
    """[VmResult] in the order of `names`."""
    output = guest_output(console, names)
    results = {name: VmResult(name, tap=parse_tap(output[name])) for name in names}
    for name, status, reason in VM_ENDED.findall(plain(bytes(log))):
        if name in results:
            results[name].status, results[name].reason = int(status), reason.strip()
    return list(results.values())


def summary(results):
    """A table of VmResults and a closing line."""
    width = max((len(r.name) for r in results), default=4)
    lines = []
    for r in results:
        status = "-" if r.status is None else r.status
        tests = f"{r.tap.passed} passed" if r.tap.points else ""
        if r.tap.failed:
            tests += f", {len(r.tap.failed)} failed"
        if r.tap.skipped:
            tests += f", {len(r.tap.skipped)} skipped"
        problem = r.problem()
        lines.append(f"{'FAIL' if problem else 'ok  '}  {r.name:{width}}  status {status:>3}  {tests}"
                     .rstrip())
        if problem:
            lines.append(f"      {problem}")
    bad = sum(r.problem() is not None for r in results)
    lines.append(f"{len(results)} guests: {len(results) - bad} passed, {bad} failed; tests: "
                 f"{sum(r.tap.passed for r in results)} passed, "
                 f"{sum(len(r.tap.failed) for r in results)} failed, "
                 f"{sum(len(r.tap.skipped) for r in results)} skipped")
    return "\n".join(lines)
