"""The page of scripts/run --report: one file with inline SVG, readable without network or script.

Everything that comes from a log or a configuration goes through esc(). The page is well-formed XML
too, which the tests check.
"""

import math

from . import report_remote
from .report_plot import (COLOURS, HEIGHT, OTHER, WIDTH, Axes, count, esc, legend, seconds, share, svg,
                          table, text, tick_label)

STYLE = """
:root { color-scheme: light dark; --line: #8888; --soft: #8882; --bad: #c0392b; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { border-top: 2px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0.4rem; } h4 { margin: 1rem 0 0.3rem; }
table { border-collapse: collapse; margin: 0.4rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.12rem 0.6rem; text-align: right; border-bottom: 1px solid var(--soft); }
th { border-bottom-color: var(--line); font-weight: 600; }
td { white-space: nowrap; } .text { text-align: left; } .mono { font-family: ui-monospace, monospace; font-size: 0.88em; }
tr.sum td { border-top: 1px solid var(--line); font-weight: 600; }
p.note, .note { color: GrayText; font-size: 0.9em; }
.problem { border-left: 4px solid var(--bad); padding: 0.3rem 0.8rem; margin: 0.5rem 0; }
.wide { overflow-x: auto; } .columns { display: flex; flex-wrap: wrap; gap: 0 3rem; }
svg { max-width: 100%; height: auto; } svg.plot { min-width: 50rem; } svg text { fill: currentColor; font-size: 12px; }
svg .axis { stroke: currentColor; stroke-width: 1; } svg .grid { stroke: var(--soft); }
pre { overflow-x: auto; padding: 0.6rem; background: var(--soft); }
svg rect { shape-rendering: crispEdges; }
.key { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.35em; }
.legend span { white-space: nowrap; } .legend > span { margin-right: 0.8em; }
"""


def reason_name(report, reason):
    return report.reasons.get(reason, (f"reason {reason}", ""))[0]


def total_exits(vcpus):
    """{reason: number} over vCPUs."""
    total = {}
    for vcpu in vcpus:
        for reason, n in vcpu.exits.items():
            total[reason] = total.get(reason, 0) + n
    return total


def merged_samples(report):
    """(start, interval, [{reason: number}], [root ticks]) over the VM's vCPUs, in ticks; all vCPUs
    start together, and intervals are multiples of one another."""
    vcpus = [v for v in report.vcpus.values() if v.interval and (v.samples or v.root)]
    if not vcpus:
        return 0, 0, [], []
    start, interval = min(v.start for v in vcpus), max(v.interval for v in vcpus)
    counts, root = {}, {}
    for vcpu in vcpus:
        for i in set(vcpu.samples) | set(vcpu.root):
            at = (vcpu.start - start + i * vcpu.interval) // interval
            if at > 4096:
                continue
            slot = counts.setdefault(at, {})
            for reason, n in vcpu.samples.get(i, {}).items():
                slot[reason] = slot.get(reason, 0) + n
            root[at] = root.get(at, 0) + vcpu.root.get(i, 0)
    n = max(counts) + 1
    return start, interval, [counts.get(i, {}) for i in range(n)], [root.get(i, 0) for i in range(n)]


def over_time(report):
    start, interval, counts, root = merged_samples(report)
    if not counts:
        return '<p class="note">No exits were sampled.</p>'
    hz = report.tsc_hz
    total = {}
    for slot in counts:
        for reason, n in slot.items():
            total[reason] = total.get(reason, 0) + n
    top = sorted(total, key=lambda r: (-total[r], r))[:len(COLOURS)]
    shown = top + [None] if len(total) > len(top) else top
    colours = dict(zip(top, COLOURS))
    span = interval / hz
    most = max(sum(slot.values()) for slot in counts) / span
    end = len(counts) * span
    axes = Axes(0, end, most, f"seconds since the VM's start ({start / hz:.3f} s after Umbra's)",
                "exits per second")
    share_axes = Axes(0, end, 100, "seconds since the VM's start", "root mode, % of a CPU")
    for i, slot in enumerate(counts):
        base = 0
        for reason in shown:
            n = slot.get(reason, 0) if reason is not None else sum(
                m for r, m in slot.items() if r not in colours)
            if n:
                name = reason_name(report, reason) if reason is not None else "all others"
                axes.parts.append(axes.bar(i * span, (i + 1) * span, base / span, (base + n) / span,
                                           colours.get(reason, OTHER),
                                           f"{name}: {n:,} in {i * span:.4g} to "
                                           f"{(i + 1) * span:.4g} s"))
                base += n
        if root[i]:
            percent = 100 * root[i] / interval
            share_axes.parts.append(share_axes.bar(
                i * span, (i + 1) * span, 0, min(percent, share_axes.ticks[-1]), COLOURS[0],
                f"{percent:.1f} % in {i * span:.4g} to {(i + 1) * span:.4g} s"))
    names = [(reason_name(report, r) if r is not None else "all others", colours.get(r, OTHER))
             for r in shown]
    return "\n".join([
        "<h3>Exits over time, by reason</h3>", legend(names),
        svg(WIDTH, HEIGHT, f"Exits over time of VM {report.vm}", axes.parts),
        f'<p class="note">All vCPUs together; {len(counts)} samples of {1000 * span:.4g} ms.</p>',
        "<h3>Time in root mode</h3>",
        svg(WIDTH, HEIGHT, f"Root mode over time of VM {report.vm}", share_axes.parts)])


def merged_costs(report):
    """{reason: (sum, max, at, {bits: exits})} over vCPUs."""
    merged = {}
    for vcpu in report.vcpus.values():
        for reason, cost in vcpu.costs.items():
            total, most, at, histogram = merged.get(reason, (0, -1, 0, {}))
            histogram = dict(histogram)
            for bits, n in cost.histogram.items():
                histogram[bits] = histogram.get(bits, 0) + n
            if cost.max > most:
                most, at = cost.max, cost.at
            merged[reason] = (total + cost.sum, most, at, histogram)
    return merged


def histogram(report, costs):
    """Rows: reasons; columns: powers of two; shade: number of exits, on a logarithmic scale."""
    used = sorted({b for _, _, _, h in costs.values() for b in h})
    if not used:
        return '<p class="note">No costs were recorded.</p>'
    columns = list(range(min(used), min(max(used), 64) + 1))
    rows = sorted(costs, key=lambda r: (-sum(costs[r][3].values()), r))
    left, cell_w, cell_h = 250, max(34, min(64, 680 // len(columns))), 22
    width, height = left + cell_w * len(columns) + 10, cell_h * len(rows) + 50
    most = max(n for _, _, _, h in costs.values() for n in h.values())
    parts = []
    for y, reason in enumerate(rows):
        parts.append(text(left - 8, y * cell_h + 16, reason_name(report, reason), "end"))
        for x, bits in enumerate(columns):
            n = costs[reason][3].get(bits, 0)
            shade = 0.15 + 0.6 * math.log(n + 1) / math.log(most + 1) if n else 0.04
            low = 1 << bits - 1 if bits else 0
            parts.append(f'<rect x="{left + x * cell_w}" y="{y * cell_h + 1}" width="{cell_w - 2}" '
                         f'height="{cell_h - 2}" fill="{COLOURS[0]}" fill-opacity="{shade:.2f}">'
                         f"<title>{esc(reason_name(report, reason))}: {n:,} exits of {low:,} to "
                         f"{(1 << bits) - 1:,} ticks</title></rect>")
            if n:
                parts.append(text(left + x * cell_w + cell_w / 2 - 1, y * cell_h + 16,
                                  tick_label(n) if n < 1000 else tick_label(float(f"{n:.2g}"))))
    for x, bits in enumerate(columns):
        low = 1 << bits - 1 if bits else 0
        parts.append(text(left + x * cell_w, len(rows) * cell_h + 16,
                          next((f"{low >> shift}{unit}" for unit, shift in
                                (("Gi", 30), ("Mi", 20), ("Ki", 10)) if low >> shift), low)))
    parts.append(text(width / 2, height - 6, "ticks in root mode: from a column's left edge to the "
                                             "next one's; number and shade: exits"))
    return svg(width, height, f"Cost histogram of VM {report.vm}", parts)


def place(address, names):
    name = names.name(address) if names else ""
    return f"{address:#x}" + (f" {name}" if name else "")


def reasons_table(report, costs, names):
    exits = total_exits(report.vcpus.values())
    whole, ticks = sum(exits.values()), sum(c[0] for c in costs.values())
    rows = []
    for reason in sorted(exits, key=lambda r: (-exits[r], r)):
        total, most, at, h = costs.get(reason, (0, 0, 0, {}))
        n = sum(h.values())
        rows.append([reason_name(report, reason), count(exits[reason]), share(exits[reason], whole),
                     count(total), share(total, ticks), f"{total / n:,.0f}" if n else "-",
                     count(most) if n else "-", place(at, names) if n else "-"])
    rows.append(["all", count(whole), "", count(ticks), "", f"{ticks / whole:,.0f}" if whole else "-",
                 "", ""])
    return table(["exit reason", "exits", "share", "ticks in root mode", "share", "mean", "dearest",
                  "where the dearest was"], rows, (0, 7), True, f"reasons-{report.vm}-{report.run}")


def vcpu_table(report):
    hz, rows = report.tsc_hz, []
    keys = ("exits", "run", "halted", "root", "watched", "injections", "faults", "refusals")

    def row(label, cpu, c):
        return [label, cpu, count(c["exits"]), seconds(c["run"], hz), seconds(c["halted"], hz),
                f"{c['exits'] / (c['run'] / hz):,.0f}" if c["run"] else "-",
                share(c["root"], c["watched"]), count(c["injections"]), count(c["faults"]),
                count(c["refusals"])]

    total = dict.fromkeys(keys, 0)
    for index in sorted(report.vcpus):
        vcpu = report.vcpus[index]
        c = {**dict.fromkeys(keys, 0), **vcpu.counters}
        rows.append(row(f"vCPU {index}", vcpu.cpu, c))
        for key in keys:
            total[key] += c[key]
    rows.append(row("all", "", total))
    return table(["", "CPU", "exits", "ran,\u00a0s", "halted,\u00a0s", "exits per second",
                  "root mode", "injections", "EPT violations", "refusals"], rows, (0,), True,
                 f"vcpus-{report.vm}-{report.run}")


def merged_hot(report, by):
    """[(at, reason, weight, error, other)] over vCPUs, heaviest first."""
    merged = {}
    for vcpu in report.vcpus.values():
        for hot in vcpu.hot.get(by, []):
            old = merged.get((hot.at, hot.reason), (0, 0, 0))
            merged[hot.at, hot.reason] = (old[0] + hot.weight, old[1] + hot.error,
                                          old[2] + hot.other)
    found = [(*key, *value) for key, value in merged.items()]
    return sorted(found, key=lambda h: (-h[2], h[0], h[1]))[:20]


def hot_tables(report, names):
    ident = f"{report.vm}-{report.run}"
    exits = [[place(at, names), reason_name(report, r), count(n), count(error), count(ticks)]
             for at, r, n, error, ticks in merged_hot(report, "exits")]
    ticks = [[place(at, names), reason_name(report, r), count(weight), count(error), count(n)]
             for at, r, weight, error, n in merged_hot(report, "ticks")]
    pages = [[f"{at << 12:#x}", reason_name(report, r), count(n), count(error), count(cost)]
             for at, r, n, error, cost in merged_hot(report, "page")]
    none = '<p class="note">None.</p>'
    return "\n".join([
        "<h3>Hottest guest addresses</h3>",
        f'<p class="note">{esc(f"Names: {names.origin}.") if names else "No symbols were found."} '
        "Exits that come from outside (interrupts, their windows, the timer) are not counted here. "
        "An entry may have got up to “too much by” that belongs to others.</p>",
        table(["address (RIP)", "reason", "exits", "too much by", "ticks"], exits, (0, 1), False,
              f"hot-exits-{ident}") if exits else none,
        "<h3>Dearest guest addresses</h3>",
        table(["address (RIP)", "reason", "ticks in root mode", "too much by", "exits"], ticks,
              (0, 1), False, f"hot-ticks-{ident}") if ticks else none,
        "<h3>Guest-physical pages that exits were about</h3>",
        table(["page", "reason", "exits", "too much by", "ticks"], pages, (0, 1), False,
              f"hot-pages-{ident}") if pages else none])


def last_table(report, vcpu, names):
    rows = []
    for e in vcpu.last:
        name, detail = report.reasons.get(e.reason, (f"reason {e.reason}", ""))
        rows.append([f"{1000 * e.tsc / report.tsc_hz:,.3f}", name,
                     f"{detail} {e.detail:#x}" if detail else "", place(e.rip, names),
                     f"{e.q:#x}", count(e.cost) if e.cost else "-"])
    return (f"<details><summary>Last exits of vCPU {vcpu.index}</summary>"
            + table(["ms since Umbra's start", "reason", "about", "RIP", "qualification",
                     "cost, ticks"], rows, (1, 2, 3)) + "</details>")


def section(report, names):
    costs = merged_costs(report)
    ended = {"end": f"ended with status {report.status}", "restart": "restarted",
             "request": "was running"}.get(report.why, report.why)
    out = [f"<h2>VM {esc(report.vm)}{f', run {report.run + 1}' if report.run else ''}</h2>",
           f"<p>{len(report.vcpus)} vCPU(s), {report.memory >> 20} MiB; {esc(ended)}. "
           f"TSC: {report.tsc_hz / 1e6:,.3f} MHz.</p>"]
    if problem := report.problem():
        out.append(f'<p class="problem">{esc(problem)}</p>')
    out += [vcpu_table(report), "<h3>Exits by reason</h3>", reasons_table(report, costs, names),
            over_time(report), "<h3>Cost of exits, by reason</h3>", histogram(report, costs),
            '<p class="note">Cost: TSC ticks in root mode from the recording of the exit until the '
            "next entry, or until the scheduler takes over. The exit and entry themselves are not in "
            "it; being watched adds a little.</p>", hot_tables(report, names)]
    if report.remote:
        out.append(report_remote.section(report))
    out += [last_table(report, report.vcpus[i], names) for i in sorted(report.vcpus)
            if report.vcpus[i].last]
    return "\n".join(out)


def summary(reports):
    rows = []
    for r in reports:
        exits = sum(total_exits(r.vcpus.values()).values())
        run = sum(v.counters.get("run", 0) for v in r.vcpus.values())
        root = sum(v.counters.get("root", 0) for v in r.vcpus.values())
        watched = sum(v.counters.get("watched", 0) for v in r.vcpus.values())
        rows.append([r.vm + (f" (run {r.run + 1})" if r.run else ""), len(r.vcpus), count(exits),
                     seconds(run, r.tsc_hz), share(root, watched), r.why, r.status])
    return table(["VM", "vCPUs", "exits", "ran,\u00a0s", "root mode", "why", "status"], rows, (0, 5),
                 False, "summary")


def page(reports, problems, about, configuration, names):
    """The whole page as text. names: {vm: symbols.Symbols}."""
    out = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8"/>',
           '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
           f"<title>Umbra report</title><style>{STYLE}</style></head><body>",
           "<h1>Umbra report</h1>", table(["", ""], [[k, v] for k, v in about], (0, 1))]
    out += [f'<p class="problem">{esc(problem)}</p>' for problem in problems]
    out.append(summary(reports) if reports else "<p>There is nothing to show.</p>")
    out += [section(report, names.get(report.vm)) for report in reports]
    out += ["<h2>Configuration</h2>", f"<pre>{esc(configuration)}</pre>", "</body></html>", ""]
    return "\n".join(out)
