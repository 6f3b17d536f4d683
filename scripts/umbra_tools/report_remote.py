"""The section of the report's page about a VM's memory on memory nodes."""

from .report_plot import (COLOURS, HEIGHT, OTHER, WIDTH, Axes, Bars, count, esc, legend, share,
                          share_bar, svg, table)

PAGE = 4096
LONGEST = 23  # the bucket for the rest
HERE, AWAY, FAULTS, READS, WRITES, USED = range(6)  # of a sample's values


def over_time(report):
    """(seconds of a sample, [values at the beginning of each]); samples without exits have those of
    the one before, and the end has the totals."""
    vcpu, remote = report.vcpus.get(0), report.remote
    if not vcpu or not vcpu.interval or not remote.gauges:
        return 0, []
    c, rows = remote.counters, []
    for i in range(max(remote.gauges) + 1):
        rows.append(remote.gauges.get(i) or (rows[-1] if rows else [0] * 6))
    rows.append([c.get("frames", 0) - c.get("free", 0), c.get("away", 0), c.get("faults", 0),
                 c.get("reads", 0), c.get("writes", 0), c.get("used", 0) + c.get("late", 0)])
    return vcpu.interval / report.tsc_hz, rows


def stacked(span, rows, names, label, y_label):
    """Bars over time: rows of values that stand on one another."""
    axes = Axes(0, len(rows) * span, max(map(sum, rows)), "seconds since the VM's start", y_label)
    for i, row in enumerate(rows):
        base = 0
        for name, value, colour in zip(names, row, COLOURS):
            if value:
                axes.parts.append(axes.bar(
                    i * span, (i + 1) * span, base, base + value, colour,
                    f"{name}: {value:,.6g} in {i * span:.4g} to {(i + 1) * span:.4g} s"))
                base += value
    return legend(zip(names, COLOURS)) + svg(WIDTH, HEIGHT, label, axes.parts)


def plots_over_time(report):
    span, rows = over_time(report)
    if len(rows) < 2:
        return '<p class="note">Nothing was recorded over time.</p>'
    steps = [[max(0, b - a) for a, b in zip(row, after)] for row, after in zip(rows, rows[1:])]
    return "\n".join([
        stacked(span, [[row[HERE], row[AWAY]] for row in rows[1:]],
                ("pages in frames", "pages on nodes only"), f"Pages over time of VM {report.vm}",
                "pages"),
        "<h4>Faults</h4>",
        stacked(span, [[step[FAULTS] / span] for step in steps], ("faults",),
                f"Faults over time of VM {report.vm}", "per second"),
        "<h4>Traffic</h4>",
        stacked(span, [[step[READS] * PAGE / 1024 / span, step[WRITES] * PAGE / 1024 / span]
                       for step in steps], ("pages read, KiB/s", "pages written, KiB/s"),
                f"Traffic over time of VM {report.vm}", "KiB per second")])


def limit(n):
    """What a bucket of the histogram holds."""
    if n >= LONGEST:
        return "longer"
    unit, size = next((u, s) for u, s in (("us", 1), ("ms", 1e3), ("s", 1e6)) if 2**n < 1000 * s)
    return f"< {2**n / size:.3g} {unit}"


def latency(report):
    remote = report.remote
    whole = sum(remote.latency.values())
    if not whole:
        return '<p class="note">No vCPU waited for a page.</p>'
    buckets = list(range(min(remote.latency), max(remote.latency) + 1))

    bars = Bars([limit(n) for n in buckets], max(remote.latency.values()),
                "from the fault until the page was there", "waits")
    for i, n in enumerate(buckets):
        if waits := remote.latency.get(n, 0):
            bars.add(i, waits, COLOURS[0], f"{waits:,} waits {limit(n)}, {share(waits, whole)}")
    return (f"<p>{whole:,} waits, {remote.latency_sum / whole / 1000:,.0f} us on average.</p>"
            + svg(WIDTH, HEIGHT, f"Latencies of VM {report.vm}", bars.parts))


def nodes(report):
    rows = [[".".join(str(node["ip"] >> shift & 255) for shift in (24, 16, 8, 0)),
             "answered" if node["up"] else "did not answer", count(node["taken"]),
             count(node["slots"]), share(node["taken"], node["slots"])]
            for node in report.remote.nodes]
    return table(["memory node", "at the end", "pages there", "room for", "full"], rows, (0, 1),
                 ident=f"nodes-{report.vm}-{report.run}")


def counters(report):
    c = report.remote.counters

    def rows(*names):
        return [[label, count(c.get(key, 0))] for label, key in names]
    ident = f"{report.vm}-{report.run}"
    return "\n".join([
        '<div class="columns">',
        table(["faults", ""], rows(
            ("all", "faults"), ("page was in a frame", "minor"), ("page was zero", "zero"),
            ("page was on its way", "waits"), ("page was about to leave", "kept"),
            ("overwritten whole, no read", "overwritten"), ("on paging structures", "tables"),
            ("no frame was free", "noframe")), ident=f"faults-{ident}"),
        table(["pages and bytes", ""], rows(
            ("pages read", "reads"), ("pages written", "writes"), ("dropped clean", "drops"),
            ("of these zero", "zeroes"), ("bytes in", "in"), ("bytes out", "out"),
            ("begun again at another node", "failovers"), ("copies refused", "corrupt"),
            ("copied again", "copied"), ("lack copies", "lacking")), ident=f"traffic-{ident}"),
        "</div>"])


def prefetch(report):
    c = report.remote.counters
    ahead, used, late, wasted = (c.get(key, 0) for key in ("ahead", "used", "late", "wasted"))
    if not ahead:
        return '<p class="note">No page was fetched ahead.</p>'
    rest = max(0, ahead - used - late - wasted)
    return (f"<p>{ahead:,} pages fetched ahead, {share(used + late, ahead)} of them of use.</p>"
            + share_bar([("touched when it was there", used, COLOURS[2]),
                         ("touched on its way", late, COLOURS[1]),
                         ("given up untouched", wasted, COLOURS[3]),
                         ("not touched yet", rest, OTHER)], f"Prefetch of VM {report.vm}"))


def section(report):
    c = report.remote.counters
    here = c.get("frames", 0) - c.get("free", 0)
    return "\n".join([
        "<h3>Memory on other machines</h3>",
        f"<p>{esc(count(c.get('pages', 0)))} pages: {count(here)} in {count(c.get('frames', 0))} "
        f"frames here, {count(c.get('away', 0))} on {c.get('nodes', 0)} memory node(s) only, the rest "
        f"zero; copies: {c.get('replicas', 0)}{', sealed' if c.get('sealed') else ''}"
        f"{'; waiting for a node' if c.get('stalled') else ''}.</p>",
        nodes(report), "<h4>Pages</h4>", plots_over_time(report), "<h4>Latency</h4>",
        latency(report), "<h4>Prefetch</h4>", prefetch(report), "<h4>Counters</h4>",
        counters(report)])
