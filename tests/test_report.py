"""The report of scripts/run --report: lines from the log, symbols, and the page."""

import html
import html.parser
import random
import re
import struct
import subprocess
import types
import xml.etree.ElementTree as ET
import zlib

import pytest

from umbra_tools import report, report_page, symbols
from umbra_tools.base import ROOT, Failure
from umbra_tools.config import Config

NONE = symbols.Symbols()


def line(text, vm=0):
    text = f"{vm} {text}"
    return f"@R {text} *{zlib.crc32(text.encode()) & 0xffff:04x}"


def vm_lines(vm="a", vcpus=2, run=0, hz=50_000_000):
    """A report as Umbra writes it. vCPU 1 has gone on for longer and has twice the interval."""
    out = [f"begin version=1 vm={vm} run={run} why=end status=1 vcpus={vcpus} memory=67108864 "
           f"tsc_hz={hz} now=9000000",
           "reason id=10 detail=leaf name=CPUID", "reason id=48 detail=gpa name=EPT violation",
           "reason id=52 detail= name=VMX-preemption timer expired"]
    for n in range(vcpus):
        out += [f"vcpu n={n} cpu={n} exits={130 + n} run=1000000 halted=500000 root=50000 "
                f"watched=1000000 injections=3 faults=20 refusals=1",
                f"exits n={n} 10:100", f"exits n={n} 48:20 52:{10 + n}",
                f"time n={n} start=7000000 interval={50000 << n} samples=5",
                f"sample n={n} i=0 root=20000 10:60", f"sample n={n} i=2 root=10000 10:40 48:20",
                f"sample n={n} i=4 root=20000 52:{10 + n}",
                f"cost n={n} reason=10 sum=12000 max=300 at=1010 7:90 9:10",
                f"cost n={n} reason=48 sum=30000 max=2000 at=2000 11:20",
                f"cost n={n} reason=52 sum=8000 max=900 at=3000 10:{10 + n}",
                f"hot n={n} by=exits at=1010 reason=10 weight=100 error=0 other=12000",
                f"hot n={n} by=exits at=2000 reason=48 weight=20 error=2 other=30000",
                f"hot n={n} by=ticks at=2000 reason=48 weight=30000 error=0 other=20",
                f"hot n={n} by=page at=fec00 reason=48 weight=20 error=0 other=30000",
                f"last n={n} tsc=8000000 reason=48 rip=2000 q=182 detail=fec00010 cost=1500",
                f"last n={n} tsc=8001000 reason=52 rip=3000 q=0 detail=0 cost=0"]
    return [line(text, ord(vm)) for text in out + [f"end vm={vm} lines={len(out) + 1}"]]


def remote_lines(vm="a", gauges=5):
    """What such a report has between `reason` and `vcpu` if the VM has remote memory."""
    out = ["remote pages=2048 frames=512 free=12 away=1100 nodes=2 up=1 replicas=2 sealed=1 stalled=0",
           "paging faults=5000 minor=40 zero=1600 waits=70 overwritten=9 kept=8 tables=7 noframe=6 "
           "reads=3000 writes=2500 drops=650 zeroes=10",
           "store in=12288000 out=20480000 failovers=3 corrupt=1 copied=20 lacking=2 ahead=400 "
           "used=300 late=40 wasted=50",
           "latency sum=90000000 6:100 8:300", "latency sum=90000000 12:200",
           "node i=0 ip=172818434 up=1 slots=6144 taken=1100",
           "node i=1 ip=4294967295 up=0 slots=0 taken=0"]
    out += [f"gauge i={i} 0:{100 * i} 1:{50 * i} 2:{1000 * i} 3:{600 * i} 4:{500 * i} 5:{60 * i}"
            for i in range(gauges) if i != 2]
    return [line(text, ord(vm)) for text in out]


def with_remote(lines):
    """The lines of vm_lines(), and these in their place."""
    more = remote_lines()
    end = line(f"end vm=a lines={len(lines) + len(more)}", ord("a"))
    return [*lines[:4], *more, *lines[4:-1], end]


def make_page(lines, names=None, configuration="[umbra]\n", about=()):
    reports, problems = report.parse(lines)
    return report_page.page(reports, problems, list(about), configuration, names or {})


class Checker(html.parser.HTMLParser):
    """Every tag that is opened is closed, in order; nothing is fetched or run."""
    VOID = ("meta", "br", "rect", "line")

    def __init__(self, text):
        super().__init__()
        self.open, self.bad = [], []
        self.feed(text)
        self.close()
        self.bad += self.open

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe") or any(
                k in ("src", "href") or k.startswith("on") for k, _ in attrs):
            self.bad.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag not in self.VOID:
            self.bad.append(f"{tag}/")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.bad.append(f"/{tag}")


def well_formed(page):
    assert page.startswith("<!DOCTYPE html>")
    assert Checker(page).bad == []
    return ET.fromstring(page.replace("<!DOCTYPE html>", ""))


def rows(root, ident):
    table = root.find(f".//table[@id='{ident}']")
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")][1:]


def texts(root):
    return ["".join(e.itertext()) for e in root.iter() if e.tag in ("p", "text", "title", "pre")]


# --- lines ------------------------------------------------------------------------------------------


def test_parse():
    reports, problems = report.parse(vm_lines())
    assert problems == []
    (found,) = reports
    assert (found.vm, found.status, found.expected, found.memory) == ("a", 1, 37, 64 << 20)
    assert found.reasons[52] == ("VMX-preemption timer expired", "")
    assert found.reasons[10] == ("CPUID", "leaf")
    vcpu = found.vcpus[1]
    assert vcpu.exits == {10: 100, 48: 20, 52: 11}
    assert vcpu.samples == {0: {10: 60}, 2: {10: 40, 48: 20}, 4: {52: 11}}
    assert vcpu.costs[10].histogram == {7: 90, 9: 10} and vcpu.costs[10].at == 0x1010
    assert vcpu.hot["page"][0].at == 0xfec00
    assert [e.cost for e in vcpu.last] == [1500, 0]


def test_remote_memory_is_parsed():
    reports, problems = report.parse(with_remote(vm_lines()))
    assert problems == []
    remote = reports[0].remote
    assert remote.counters["away"] == 1100 and remote.counters["wasted"] == 50
    assert len(remote.counters) == sum(map(len, report.REMOTE.values()))
    assert remote.latency == {6: 100, 8: 300, 12: 200} and remote.latency_sum == 90000000
    assert [node["up"] for node in remote.nodes] == [1, 0]
    assert sorted(remote.gauges) == [0, 1, 3, 4]
    assert remote.gauges[4] == [400, 200, 4000, 2400, 2000, 240]
    assert report.parse(vm_lines())[0][0].remote is None


def test_remote_memory_has_the_keys_that_are_written():
    source = (ROOT / "hv/remote/report.c").read_text()
    formats = re.findall(r'"((?:[^"\\\\]|\\\\.)*)"', re.sub(r'"\s*"', "", source))
    for kind, keys in report.REMOTE.items():
        (text,) = [f for f in formats if f.startswith(f"{kind} ")]
        assert tuple(re.findall(r"(\w+)=%", text)) == keys
    assert f"_Static_assert(PROFILE_GAUGES == {report.GAUGES}" in source


def test_long_lists_go_on_in_another_line():
    lines = vm_lines(vcpus=1)
    lines[10] = line("sample n=0 i=2 root=10000 10:40", 97)
    lines.insert(11, line("sample n=0 i=2 root=10000 48:20", 97))
    lines[-1] = line(f"end vm=a lines={len(lines)}", 97)
    reports, problems = report.parse(lines)
    assert problems == []
    assert reports[0].vcpus[0].samples[2] == {10: 40, 48: 20}


def test_reports_alternate():
    """VMs that end together write a line each in turn."""
    one, two = vm_lines(), vm_lines("b", 1)
    mixed = [text for pair in zip(one, two) for text in pair] + one[len(two):]
    reports, problems = report.parse(mixed)
    assert problems == []
    assert [(r.vm, len(r.vcpus), sum(v.counters["exits"] for v in r.vcpus.values()))
            for r in reports] == [("a", 2, 261), ("b", 1, 130)]


def test_later_report_replaces_earlier():
    reports, problems = report.parse(vm_lines(vcpus=1) + vm_lines("b") + vm_lines(vcpus=2)
                                     + vm_lines(run=1))
    assert problems == []
    assert [(r.vm, r.run, len(r.vcpus)) for r in reports] == [("a", 0, 2), ("b", 0, 2), ("a", 1, 2)]


def said(lines):
    """What is wrong with these lines; and that the page can be made all the same."""
    reports, problems = report.parse(lines)
    well_formed(make_page(lines))
    return "; ".join(problems)


def test_truncated():
    lines = vm_lines()
    for length in range(1, len(lines)):
        assert "VM a is incomplete: its end is missing" in said(lines[:length])
    assert said([]) == ""
    assert "its end is missing; 1 damaged line(s)" in said(lines[:8] + [lines[8][:20]])


def test_lost_lines():
    lines = vm_lines()
    assert "2 of 37 lines are missing" in said(lines[:5] + lines[7:])
    assert "belong to no report" in said(lines[1:])
    # The beginning of the second one is lost: its lines are not the first one's.
    both = lines + vm_lines("b")[1:]
    assert "36 line(s) belong to no report" in said(both)
    # The end of the first one is lost, and the second one is whole.
    reports, problems = report.parse(lines[:-1] + vm_lines("b"))
    assert [r.expected for r in reports] == [None, 37]
    assert problems == ["the report of VM a is incomplete: its end is missing"]
    reports, problems = report.parse(lines[:-1] + vm_lines("a", run=1))
    assert [r.expected for r in reports] == [None, 37] and len(problems) == 1


def test_changed_bytes():
    lines = vm_lines()
    damaged = lines[:5] + [lines[5].replace("100", "900")] + lines[6:]
    assert said(damaged) == ("the report of VM a is incomplete: 1 of 37 lines are missing; "
                             "1 damaged line(s)")
    reports, _ = report.parse(damaged)
    assert reports[0].vcpus[0].exits == {52: 10, 48: 20}  # and nothing wrong is believed


@pytest.mark.parametrize("text,why", [
    ("begin version=2 vm=a", "version 2, expected 1"),
    ("begin vm=a", "no version"),
    ("fish n=0", "unknown kind fish"),
    ("sample n=0 i=99999999 root=1", "i=99999999"),
    ("sample n=999 i=1 root=1", "vCPU 999"),
    ("sample n=0 i=1 root=-5", "root=-5"),
    ("exits n=0 10:1:2", "10:1:2"),
    ("exits n=0 10:" + "9" * 400, "999"),
    ("cost n=0 reason=10 sum=1 max=1 at=xyz", "at=xyz"),
    ("last n=0 tsc=1", "no reason"),
    ("", "unknown kind"),
])
def test_intact_lines_without_sense(text, why):
    problems = said(vm_lines()[:-1] + [line(text, 97)])
    assert "does not make sense" in problems and why in problems


def test_noise():
    """Whatever a serial line does, there is a page and no exception."""
    rng = random.Random(3)
    whole = with_remote(vm_lines()) + vm_lines("b", 1)
    for _ in range(300):
        data = bytearray("\n".join(whole).encode())
        for _ in range(rng.randrange(1, 20)):
            at = rng.randrange(len(data))
            action = rng.randrange(4)
            if action == 0:
                data[at] = rng.randrange(256)
            elif action == 1:
                del data[at:at + rng.randrange(60)]
            elif action == 2:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(30)))
            else:
                data[at:at] = b"\n@R "
        lines, _ = report.split(bytes(data))
        said(lines)


def test_sensible_noise():
    """Lines whose check is right and whose values are anything."""
    rng = random.Random(4)
    base = [text[6:-6] for text in with_remote(vm_lines())]
    for _ in range(300):
        lines = list(base)
        for _ in range(5):
            at = rng.randrange(len(lines))
            lines[at] = re.sub(r"\d+", lambda m: rng.choice([m[0], "0", "1", "64", str(1 << 64),
                                                             str(rng.getrandbits(60))]), lines[at])
        said([line(text, 97) for text in lines])


# --- the page ---------------------------------------------------------------------------------------


def test_totals():
    root = well_formed(make_page(vm_lines() + vm_lines("b", 1)))
    assert [(r[0], r[1], r[2]) for r in rows(root, "summary")] == [("a", "2", "261"), ("b", "1", "130")]
    table = {row[0]: row for row in rows(root, "reasons-a-0")}
    assert table["CPUID"][1:6] == ["200", "76.6 %", "24,000", "24.0 %", "120"]
    assert table["VMX-preemption timer expired"][1] == "21"
    assert table["all"][1] == "261" and table["all"][3] == "100,000"
    vcpus = rows(root, "vcpus-a-0")
    assert [row[2] for row in vcpus] == ["130", "131", "261"]
    assert vcpus[0][3:7] == ["0.020", "0.010", "6,500", "5.0 %"]
    assert vcpus[2][7:] == ["6", "40", "2"]
    hot = rows(root, "hot-exits-a-0")
    assert hot[0] == ["0x1010", "CPUID", "200", "0", "24,000"]
    assert hot[1] == ["0x2000", "EPT violation", "40", "4", "60,000"]
    assert rows(root, "hot-ticks-a-0")[0][2] == "60,000"
    assert rows(root, "hot-pages-a-0") == [["0xfec00000", "EPT violation", "40", "0", "60,000"]]


def test_plots_add_up():
    """vCPUs with different intervals share the axis of the coarser one."""
    root = well_formed(make_page(vm_lines()))
    hints = [e.text for e in root.iter("title")]
    total = {}
    for hint in hints:
        if m := re.fullmatch(r"(.*): ([\d,]+) in ([\d.e+-]+) to ([\d.e+-]+) s", hint):
            total[m[1]] = total.get(m[1], 0) + int(m[2].replace(",", ""))
            assert abs(float(m[4]) - float(m[3]) - 0.002) < 1e-6
    assert total == {"CPUID": 200, "EPT violation": 40, "VMX-preemption timer expired": 21}
    # Root mode: 100,000 ticks in all, of samples of 100,000.
    shares = [float(m[1]) for h in hints if (m := re.fullmatch(r"([\d.]+) % in .*", h))]
    assert abs(sum(shares) - 100) < 0.1
    # vCPU 0's sample 2 lies where vCPU 1's sample 1 would: at 2 ms.
    assert "CPUID: 40 in 0.002 to 0.004 s" in hints
    assert "EPT violation: 20 in 0.004 to 0.006 s" in hints
    cells = [m for h in hints if (m := re.fullmatch(r"CPUID: ([\d,]+) exits of (.*) ticks", h))]
    assert {m[2]: m[1] for m in cells if m[1] != "0"} == {"64 to 127": "180", "256 to 511": "20"}


def test_remote_memory_is_shown():
    root = well_formed(make_page(with_remote(vm_lines())))
    said = texts(root)
    assert any(t.startswith("2,048 pages: 500 in 512 frames here, 1,100 on 2 memory node(s) only")
               and t.endswith("copies: 2, sealed.") for t in said)
    assert rows(root, "nodes-a-0") == [
        ["10.77.0.2", "answered", "1,100", "6,144", "17.9 %"],
        ["255.255.255.255", "did not answer", "0", "0", "-"]]
    counters = dict(rows(root, "faults-a-0") + rows(root, "traffic-a-0"))
    assert counters["all"] == "5,000" and counters["bytes out"] == "20,480,000"
    assert "600 waits, 150 us on average." in said
    assert "400 pages fetched ahead, 85.0 % of them of use." in said
    # Of 128, 512 and 4,096 us there are bars, and the places between are there.
    labels = [t.text for t in root.iter("text")]
    assert labels[labels.index("< 64 us"):][:7] == [
        "< 64 us", "< 128 us", "< 256 us", "< 512 us", "< 1.02 ms", "< 2.05 ms", "< 4.1 ms"]
    hints = [e.text for e in root.iter("title")]
    assert "300 waits < 256 us, 50.0 %" in hints
    assert "touched on its way: 40, 10.0 %" in hints
    assert "not touched yet: 10, 2.5 %" in hints


def test_remote_memory_over_time():
    """Samples are of 1 ms; what was read in them is what was read in all; the last one goes up to the
    totals, and one without exits has what the one before it had."""
    hints = [e.text for e in well_formed(make_page(with_remote(vm_lines()))).iter("title")]
    found = {}
    for hint in hints:
        if m := re.fullmatch(r"(pages .*|faults): ([\d,.e+-]+) in ([\d.e+-]+) to ([\d.e+-]+) s", hint):
            found.setdefault(m[1], []).append((float(m[3]), float(m[2].replace(",", ""))))
    assert found["pages in frames"] == [(0, 100), (0.001, 100), (0.002, 300), (0.003, 400), (0.004, 500)]
    assert found["pages on nodes only"][-1] == (0.004, 1100)
    assert found["faults"] == [(0, 1e6), (0.002, 2e6), (0.003, 1e6), (0.004, 1e6)]
    assert sum(rate for _, rate in found["pages read, KiB/s"]) * 0.001 / 4 == 3000
    assert sum(rate for _, rate in found["pages written, KiB/s"]) * 0.001 / 4 == 2500


def test_remote_memory_not_touched():
    lines = with_remote(vm_lines())
    lines[6] = line("store in=0 out=0 failovers=0 corrupt=0 copied=0 lacking=0 ahead=0 used=0 late=0 "
                    "wasted=0", 97)
    kept = [t for t in lines if " latency " not in t and " gauge " not in t]
    said = texts(well_formed(make_page(kept)))
    assert {"No vCPU waited for a page.", "No page was fetched ahead.",
            "Nothing was recorded over time."} <= set(said)
    assert not any("memory node" in t for t in texts(well_formed(make_page(vm_lines()))))


def test_axes_have_labels_and_units():
    root = well_formed(make_page(vm_lines()))
    labels = [t.text for t in root.iter("text")]
    assert any(t.startswith("seconds since the VM's start") for t in labels)
    assert "exits per second" in labels
    assert any("ticks in root mode" in t for t in labels)
    for svg in root.iter("svg"):
        assert svg.get("aria-label") and float(svg.get("width")) > 0


def test_no_data():
    root = well_formed(make_page([]))
    assert any("nothing to show" in t for t in texts(root))
    # A vCPU that never ran.
    lines = [line(t) for t in (
        "begin version=1 vm=a run=0 why=end status=0 vcpus=1 memory=0 tsc_hz=0 now=0",
        "vcpu n=0 cpu=0 exits=0 run=0 halted=0 root=0 watched=0 injections=0 faults=0 refusals=0",
        "exits n=0", "time n=0 start=0 interval=1 samples=0", "end vm=a lines=5")]
    root = well_formed(make_page(lines))
    assert rows(root, "vcpus-a-0")[0][2] == "0"
    assert any("No exits were sampled" in t for t in texts(root))


def test_escapes():
    evil = "<script>alert(1)</script>&\"'\x00\x1b\ud800"
    page = make_page(vm_lines(), configuration=f"[vm a]\ncmdline = {evil}\n",
                     names={"a": symbols.Symbols([(0x1000, evil)], evil)}, about=[(evil, evil)])
    root = well_formed(page)
    assert "<script" not in page
    assert rows(root, "hot-exits-a-0")[0][0].startswith("0x1010 <script>alert(1)")
    # A name in the log that no configuration allows.
    root = well_formed(make_page([line("begin version=1 vm=<b> run=0 why=<i> status=0 vcpus=1 "
                                       "memory=0 tsc_hz=1 now=0"),
                                  line("reason id=1 detail=<u> name=<s>&"), line("exits n=0 1:1"),
                                  line("end vm=x lines=4")]))
    assert [e.text for e in root.iter("h2")][0] == "VM <b>"


def test_more_reasons_than_colours():
    lines = [line(t) for t in (
        "begin version=1 vm=a run=0 why=end status=0 vcpus=1 memory=0 tsc_hz=1000 now=0",
        "exits n=0 " + " ".join(f"{r}:{r + 1}" for r in range(20)),
        "time n=0 start=0 interval=1000 samples=1",
        "sample n=0 i=0 root=1 " + " ".join(f"{r}:{r + 1}" for r in range(20)),
        "end vm=a lines=5")]
    root = well_formed(make_page(lines))
    hints = [e.text for e in root.iter("title")]
    assert any(h == f"all others: {sum(range(1, 14))} in 0 to 1 s" for h in hints), hints
    assert any(h.startswith("reason 19: 20 in ") for h in hints)


# --- the log as it comes ----------------------------------------------------------------------------


def test_filter_and_split():
    log = "[ 1] one\r\n" + "\r\n".join(vm_lines()) + "\r\n@ not ours\r\n@Rnor this\r\n[ 2] two\r\n@"
    want = b"[ 1] one\r\n@ not ours\r\n@Rnor this\r\n[ 2] two\r\n"
    lines, rest = report.split(log.encode())
    assert lines == vm_lines() and rest == want + b"@"
    rng = random.Random(1)
    for _ in range(200):
        shown, data = [], log.encode()
        sink = report.Filter(shown.append)
        while data:
            n = rng.choice([1, 2, 3, 7, 50, 1000])
            sink(data[:n])
            data = data[n:]
        assert b"".join(shown) == want


def test_filter_holds_nothing_back_for_nothing():
    shown = []
    sink = report.Filter(shown.append)
    sink(b"[ 1] half a li")
    assert shown == [b"[ 1] half a li"]
    sink(b"ne @R \n")
    assert b"".join(shown) == b"[ 1] half a line @R \n"
    report.Filter(None)(b"nobody looks\n")


def finished(tmp_path, log, reason="end"):
    kernel = tmp_path / "k.elf"
    kernel.write_bytes(b"no ELF")
    config = Config(f"[vm a]\nkernel = {kernel}\n", folder=tmp_path)
    wanted = report.Wanted(tmp_path / "r.html", config)
    assert config.get("umbra", "report") == "yes"
    session = types.SimpleNamespace(log=bytearray(log.encode()), reason=reason)
    machine = types.SimpleNamespace(emulator="bochs", cpu="", cpus=1, memory=512)
    wanted.write(session, config, machine)
    return session, (tmp_path / "r.html").read_text()


def test_written(tmp_path, capsys):
    log = "[    0.1 cpu0] Umbra 0.1\r\n[    0.2 cpu0] X (family 6 model 1 stepping 0)\r\n"
    session, page = finished(tmp_path, log + "\r\n".join(vm_lines()) + "\r\numbra: end 1\r\n")
    assert b"@R" not in session.log and b"umbra: end 1" in session.log
    root = well_formed(page)
    assert any("Umbra 0.1" in "".join(e.itertext()) for e in root.iter("table"))
    assert "report = yes" in page and "had not ended" not in page
    assert "report written to" in capsys.readouterr().err


def test_one_still_running(tmp_path):
    _, page = finished(tmp_path, "\r\n".join(vm_lines("b")) + "\r\n")
    assert ["Without a report", "a: had not ended"] in [
        ["".join(c.itertext()) for c in row] for row in well_formed(page).iter("tr")]


def test_nothing_arrived(tmp_path, capsys):
    _, page = finished(tmp_path, "[    0.1 cpu0] Umbra 0.1\r\n", "timeout")
    assert "no report arrived" in page and "time was up" in page
    assert "no report arrived" in capsys.readouterr().err
    well_formed(page)
    with pytest.raises(Failure, match="No such file"):
        config = Config(f"[vm a]\nkernel = {tmp_path}/k.elf\n", folder=tmp_path)
        wanted = report.Wanted(tmp_path / "gone/r.html", config)
        wanted.write(types.SimpleNamespace(log=bytearray(), reason="end"), config,
                     types.SimpleNamespace(emulator="bochs", cpu="", cpus=1, memory=1))


# --- symbols ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_symbols(bits, tmp_path):
    source = """
	.globl one
	.type one, @function
one:	nop
	ret
alias:	.type two, @function
two:	nop
	.data
thing:	.long 1
	.type thing, @object
"""
    obj, elf = tmp_path / "x.o", tmp_path / "x.elf"
    subprocess.run(["as", f"--{bits}", "-o", obj], input=source, text=True, check=True)
    subprocess.run(["ld", "-m", "elf_i386" if bits == 32 else "elf_x86_64", "-Ttext", "0x1000", "-e",
                    "one", "-o", elf, obj], check=True, capture_output=True)
    names = symbols.load(elf)
    assert names.name(0x1000) == "one"
    assert names.name(0x1001) == "one+0x1"
    assert names.name(0x1002) == "two"  # a function rather than a label
    assert names.name(0xfff) == ""
    assert names.name(0x1002 + (2 << 20)) == ""
    data = elf.read_bytes()
    rng = random.Random(5)
    for cut in [*range(0, 200, 7), *(rng.randrange(len(data)) for _ in range(100))]:
        symbols.from_elf(data[:cut])
    for _ in range(300):
        noisy = bytearray(data)
        for _ in range(8):
            noisy[rng.choice([rng.randrange(64), rng.randrange(len(data))])] = rng.randrange(256)
        symbols.from_elf(bytes(noisy))
        symbols.from_kallsyms(bytes(noisy))


def test_system_map(tmp_path):
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"\0" * 0x202 + b"HdrS" + b"\0" * 100)
    (tmp_path / "System.map-6").write_text("ffffffff81000000 T _text\nffffffff81000100 t inner\n"
                                           "ffffffff82000000 D data\n")
    assert not symbols.load(kernel)  # it may lie anywhere
    names = symbols.load(kernel, "console=ttyS0 nokaslr")
    assert names.name(0xffffffff81000104) == "inner+0x4"
    assert names.name(0x1000100) == "inner"  # before it has turned to its own mapping
    (tmp_path / "System.map-6").write_text("ffffffffffffffff B The real System.map is elsewhere\n")
    assert not symbols.load(kernel, "nokaslr")
    assert not symbols.load(tmp_path / "gone")


def linux_image(number, seqs, behind):
    """An array of bytes with Linux's table of symbols in it: with the numbers of names in order
    behind the markers or not, and addresses before the names (to 6.3) or behind all (later)."""
    tokens = [bytes([c]) if chr(c).isalnum() or c == 95 else b"" for c in range(256)]
    tokens[1], tokens[2] = b"func", b"_long_" * 20
    names, markers, bodies = b"", [], []
    for i in range(number):
        if i % 256 == 0:
            markers.append(len(names))
        body = (b"T" if i % 2 else b"d") + b"\1" + str(i).encode() + (b"\2" * 130 if i == 7 else b"")
        size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7f | 0x80,
                                                                len(body) >> 7])
        names += size + body
        bodies.append(body)

    def pad(data):
        return data + b"\0" * (-len(data) % 8)

    table = b"".join(token + b"\0" for token in tokens)
    offset = 0
    index = b""
    for token in tokens:
        index += struct.pack("<H", offset)
        offset += len(token) + 1
    base = 0xffffffff81000000
    # Absolute values of per-CPU data are positive, the others negative (up to 6.14).
    values = struct.pack(f"<{number}i", *(-1 - 16 * i for i in range(number)))
    places = pad(values) + struct.pack("<Q", base)
    out = bytes(512) + (b"" if behind else places) + pad(struct.pack("<I", number)) + pad(names)
    out += pad(struct.pack(f"<{len(markers)}I", *markers))
    out += pad(b"".join(i.to_bytes(3, "big") for i in range(number))) if seqs else b""
    return out + pad(table) + index + (places if behind else b"") + bytes(512)


@pytest.mark.parametrize("seqs,behind", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("number", [513, 1024, 3000])
def test_kallsyms(number, seqs, behind, tmp_path):
    data = linux_image(number, seqs, behind)
    found = symbols.from_kallsyms(data)
    assert len(found) == number // 2
    assert found[0] == (0xffffffff81000010, "func1")
    assert found[3] == (0xffffffff81000070, "func7" + "_long_" * 20 * 130)
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(data)
    assert symbols.load(kernel).name(0xffffffff81000012) == "func1+0x2"


def test_kallsyms_damaged():
    data, rng = linux_image(700, True, False), random.Random(6)
    for _ in range(60):
        noisy = bytearray(data)
        for _ in range(rng.randrange(1, 10)):
            noisy[rng.randrange(len(noisy))] = rng.randrange(256)
        symbols.from_kallsyms(bytes(noisy[:rng.randrange(len(noisy))]))
        symbols.from_kallsyms(bytes(noisy))
