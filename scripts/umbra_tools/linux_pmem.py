"""Programs for Debian's kernel as a guest with NVDIMMs: Debian's own (ndctl, fio, sqlite3, the tools
of PMDK) and guest/linux/cuts/."""

from . import linux
from .base import BUILD, ROOT

DEBIAN = (("ndctl", "usr/bin/ndctl"), ("e2fsprogs", "sbin/mke2fs"), ("e2fsprogs", "sbin/e2fsck"),
          ("fio", "usr/bin/fio"), ("sqlite3", "usr/bin/sqlite3"),
          ("pmdk-tools", "usr/bin/pmempool"), ("pmdk-tools", "usr/bin/daxio"))
# fio names the libraries of engines for Ceph, GlusterFS, network block devices and RDMA, 70 MB with
# what they need.
HOLLOW = {"librbd.so.1": "rbd_", "librados.so.2": "rados_", "libnbd.so.0": "nbd_",
          "libgfapi.so.0": "glfs_", "libibverbs.so.1": "ibv_", "librdmacm.so.1": "rdma_"}


def programs(debian=DEBIAN, cuts=True):
    """`files` for linux.configuration()."""
    own = {}
    if cuts:
        program = linux.compiled(
            BUILD / "linux/cuts", sorted((ROOT / "guest/linux/cuts").glob("*.c")),
            headers=("libsqlite3-dev", "libpmemobj-dev", "libpmem-dev"),
            libraries={"libsqlite3-0": "libsqlite3.so.0", "libpmemobj1": "libpmemobj.so.1",
                       "libpmem1": "libpmem.so.1"})
        own["umbra/cuts"] = program, ("libsqlite3-0", "libpmemobj1", "libpmem1", "libc6")
    return linux.programs(*debian, own=own, hollow=HOLLOW)
