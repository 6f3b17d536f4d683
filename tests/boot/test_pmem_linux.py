"""Debian's kernel uses a guest's NVDIMMs: labels and namespaces of all kinds, ext4 with DAX, fio,
SQLite and the libraries of PMDK; each flush it issues reaches each controller of the hardware, as
the kernel's own count says; and what was flushed is there after a failure of power.

Region 0 gets labels and three namespaces, and is there after a restart. Region 1 is worked on while
images of it, as failures of power would leave it, come to be in region 2 (guest/linux/cuts/)."""

import json
import re

import pytest

from harness import boot, have_emulator
from test_linux import HIDE, complaints, parts
from umbra_tools import linux, linux_pmem

COMMON = r"""
for m in nfit nd_pmem nd_btt dax_pmem device_dax ext4; do modprobe $m; done
N=/sys/bus/nd/devices; T=/sys/kernel/tracing
mount -t tracefs tracefs $T
mkdir -p /img
# The shutdown state of a pool knows its NVDIMM; an image is on another.
export PMEMOBJ_CONF=sds.at_create=0
state() {
	echo "$1: hits $(awk '{print $2}' $T/kprobe_profile) writes $(pmem writes)" \
		"flushes $(pmem flushes)"
}
# An NVDIMM stores lines of 64 bytes, not sectors: power may fail in the middle of ext4's superblock,
# which is read before the journal is. With its checksum there is no way back from that.
mke() {
	/sbin/mke2fs -q -F -t ext4 -O ^metadata_csum -b 4096 -N 64 -J size=4 $1 >/dev/null &&
		mount -t ext4 -o dax=always $1 /mnt
}
images() { # workload, how many, within: region 1, image in region 2
	mke /dev/pmem1
	cuts $1 images $2 $3 $SEED /mnt 1 /dev/pmem2 /img; echo "status $?"
	umount /mnt
}
write() {
	fio --name=$1 --directory=/mnt --rw=write --bs=4k --size=128k --fsync=1 --ioengine=sync \
		--output-format=json >/tmp/fio.json || echo "fio failed"
	grep '"total_ios"' /tmp/fio.json | tail -1
}
"""

FIRST = r"""
if ! ndctl list -N -n namespace0.0 | grep -q uuid; then
echo @@ raw; ndctl list -RDN
cat $N/region0/deep_flush $N/region1/deep_flush
echo @@ labels
ndctl disable-region region0
ndctl init-labels nmem0 2>&1
ndctl check-labels nmem0 2>&1
ndctl read-labels -j nmem0 2>/dev/null | grep -c NAMESPACE_INDEX
ndctl enable-region region0
for mode in "fsdax -s 16M" "devdax -s 16M" "sector -s 32M"; do
	ndctl create-namespace -r region0 -m $mode >/dev/null || echo "no $mode"
done
echo @@ namespaces; ndctl list -N
echo @@ counts
mke /dev/pmem0; mount | grep pmem0
echo 'p:flush generic_nvdimm_flush' >$T/kprobe_events
echo 1 >$T/events/kprobes/flush/enable
state begin
write one; state fio
for i in 1 2 3 4 5; do echo 1 >$N/region0/deep_flush; done; state deep
pmem none; pmem mode; write two; state none
pmem trap; write one; state trap
echo 0 >$T/events/kprobes/flush/enable
echo @@ sector
dd if=/dev/urandom of=/tmp/noise bs=4k count=64 2>/dev/null
dd if=/tmp/noise of=/dev/pmem0.2s bs=4k conv=fsync 2>/dev/null
echo @@ pmdk
daxio -i /tmp/noise -o /dev/dax0.1 2>&1
cp /tmp/noise /mnt/noise
echo @@ sqlite
sqlite3 /mnt/db "create table t(x); insert into t values(1),(2),(3); select sum(x) from t"
sync; sleep 1
md5sum /tmp/noise
echo @@ dmesg1; dmesg -r
echo @@ work
cuts sqlite work /mnt 20000000 $SEED
fi
"""

SECOND = r"""
echo @@ restarted; ndctl list -N
cat $N/region0/deep_flush
ndctl check-labels nmem0 2>&1
echo @@ content
mount -t ext4 -o dax=always /dev/pmem0 /mnt
md5sum </mnt/noise
dd if=/dev/pmem0.2s bs=4k count=64 2>/dev/null | md5sum
sqlite3 /mnt/db "select sum(x) from t"
echo @@ verify; cuts sqlite verify /mnt
umount /mnt; /sbin/e2fsck -f -n /dev/pmem0 >/dev/null && echo clean
"""

IMAGES = r"""
for r in 1 2; do ndctl create-namespace -f -e namespace$r.0 -m fsdax >/dev/null; done
"""

DMESG = r"""
echo @@ dmesg; dmesg -r
"""

WHOLE = FIRST + SECOND + IMAGES + r"""
echo @@ images sqlite; images sqlite 12 5000000
echo @@ images libpmemobj; images libpmemobj 4 5000000
""" + DMESG + r"""
echo @@ unflushed; pmem none 1; images sqlite 8 5000000; pmem trap 1
"""

# The mounted images recover their journals, and so on.
EXPECTED = re.compile(r"EXT4-fs .*(mounted|unmounting|recovery complete)|nd_pmem btt")


def run(session, name, flavour="cloud", seed=1, pmem="model 64M, model 16M, model 16M",
        timeout=600, cpu="corei7_skylake_x"):
    if not have_emulator("bochs3"):
        pytest.skip("no Bochs 3.0")
    config = linux.configuration(flavour, vcpus=1, memory=256, alone=True, name=name,
                                 session=COMMON.replace("$SEED", str(seed))
                                 + session.replace("$SEED", str(seed)) + "echo @@ end\n",
                                 files=linux_pmem.programs())
    config.set("vm linux", "pmem", pmem)
    result = boot(config=config, name=name, emulator_name="bochs3", cpu=cpu, cpus=1,
                  timeout=timeout, hide=HIDE)
    lines = result.vms["linux"].tap.lines
    assert result.reason == "end" and result.status == 0, \
        result.explain() + "\n".join(lines[-40:])
    found = parts(lines)
    assert "end" in found, "\n".join(lines[-40:])
    for part in ("dmesg", "dmesg1"):
        bad = [line for line in complaints(found.get(part, [])) if not EXPECTED.search(line)]
        assert not bad, "\n".join(bad)
    return found


def namespaces(lines):
    """{mode: (name, size, uuid)} of what `ndctl list -N` said of region 0."""
    listed = json.loads("\n".join(lines))
    return {n["mode"]: (n["dev"], n["size"], n.get("uuid")) for n in listed
            if n["dev"].startswith("namespace0.")}


def state(lines, name):
    hits, writes, flushes = re.search(rf"^{name}: hits (\d+) writes (\d+) flushes ([\d ]+)$",
                                      "\n".join(lines), re.M).groups()
    return int(hits), int(writes), [int(n) for n in flushes.split()]


def check_counts(lines):
    """What the kernel says it issued, what trapped, and what each controller was told."""
    at = {name: state(lines, name) for name in ("begin", "fio", "deep", "none", "trap")}

    def since(a, b):
        return (at[b][0] - at[a][0], at[b][1] - at[a][1],
                [y - x for x, y in zip(at[a][2], at[b][2])])

    assert len(at["begin"][2]) == 4
    for a, b in (("begin", "fio"), ("fio", "deep"), ("none", "trap")):
        hits, writes, flushes = since(a, b)
        assert hits > 0 and writes == hits and flushes == [hits] * 4, f"{b}: {since(a, b)}"
    # fio issued 32 fsync; a file's size and its data are two flushes at times.
    assert since("begin", "fio")[0] >= 32
    assert since("fio", "deep")[0] == 5
    hits, writes, flushes = since("deep", "none")
    assert hits >= 32 and writes == 0 and flushes == [0] * 4, since("deep", "none")


def check_first(found):
    raw = json.loads("\n".join(found["raw"][:-2]))
    assert sorted(d["dev"] for d in raw["dimms"]) == ["nmem0", "nmem1", "nmem2"]
    assert {n["mode"] for r in raw["regions"] for n in r["namespaces"]} == {"raw"}
    assert found["raw"][-2:] == ["1", "1"]
    text = "\n".join(found["labels"])
    assert "initialized 1 nmem" in text and "successfully verified 1 nmem" in text, text
    modes = namespaces(found["namespaces"])
    assert set(modes) == {"fsdax", "devdax", "sector"}, found["namespaces"]
    assert any("dax=always" in line for line in found["counts"])
    check_counts(found["counts"])
    assert 'daxio: copied 262144 bytes to device "/dev/dax0.1"' in found["pmdk"], found["pmdk"]
    assert found["sqlite"][0] == "6"
    # After the failure of power, in the same boot of Umbra.
    assert namespaces(found["restarted"][:-2]) == modes
    assert found["restarted"][-2] == "1" and "successfully verified" in found["restarted"][-1]
    noise = found["sqlite"][1].split()[0]
    assert [line.split()[0] for line in found["content"]] == [noise] * 2 + ["6"]
    durable = [int(line.split()[1]) for line in found["work"] if re.fullmatch(r"durable \d+", line)]
    there = int(re.match(r"(\d+) operations are there", found["verify"][0])[1])
    assert durable and durable[-1] <= there <= durable[-1] + 1, (durable[-1:], there)
    assert "clean" in found["verify"], found["verify"]


def check_images(lines, workload, count):
    text = "\n".join(lines)
    assert re.search(rf"^cuts: {workload}: {count} images, 0 wrong, \d+ with more .*, (\d+) op",
                     text, re.M) and "status 0" in text, text


def test_pmem():
    """One boot of Umbra, two lives of Linux with a failure of power at random between them. That the
    images can be wrong is seen by one that is taken without flushes."""
    found = run(WHOLE, "pmem-linux", seed=11)
    check_first(found)
    check_images(found["images sqlite"], "sqlite", 12)
    check_images(found["images libpmemobj"], "libpmemobj", 4)
    wrong = re.search(r"^cuts: sqlite: 8 images, (\d+) wrong", "\n".join(found["unflushed"]), re.M)
    assert wrong and int(wrong[1]) > 0, found["unflushed"]


@pytest.mark.long
@pytest.mark.parametrize("workload,count", [("sqlite", 300), ("sqlite-wal", 200), ("files", 300),
                                            ("libpmemobj", 100)])
def test_images(workload, count):
    session = IMAGES + f"echo @@ images; images {workload} {count} 5000000\n" + DMESG
    found = run(session, f"pmem-{workload}", seed=2, pmem="model 16M, model 16M, model 16M",
                timeout=3000)
    check_images(found["images"], workload, count)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20, 24))
def test_restarts(seed):
    """Failures of power as they are: the VM restarts, and finds its labels and all it flushed."""
    check_first(run(FIRST + SECOND + DMESG, f"pmem-restart-{seed}", seed=seed, timeout=1200))


@pytest.mark.long
def test_amd64():
    check_first(run(FIRST + SECOND + DMESG, "pmem-amd64", flavour="amd64", seed=3, timeout=1200))
