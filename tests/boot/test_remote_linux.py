"""Guest memory on a Linux host: Umbra in Bochs, Debian's kernel with rdma_rxe and memnode-verbs in
QEMU, and a wire between them."""

import re
import sys

import pytest

from harness import boot
from umbra_tools.base import BUILD, ROOT, build
from umbra_tools.config import Config
from umbra_tools.emulator import Nic
from umbra_tools.memnodes import IPS

sys.path.append(str(ROOT / "tests/interop"))
from rxe import ADDRESS, Linux, Wire  # noqa: E402


@pytest.mark.long
def test_node_on_linux():
    """The guest's checks of all its memory hold with a quarter of it here."""
    build("guests", "memnode")
    nic = Nic()
    config = Config(name="a node on Linux", folder=ROOT)
    config.set("umbra", "network", "10.77.0.2/24")
    for key, value in {"kernel": BUILD / "guest/remote.elf", "memory": "8M", "local": "2M",
                       "cmdline": "mib=4", "remote": ADDRESS, "remote_token": "sesame"}.items():
        config.set("vm remote", key, value)
    with Linux(Wire(nic), memory=384) as linux:
        linux.node("--size 64 --token sesame")
        result = boot(config=config, name="remote-linux", emulator_name="bochs3", nic=nic, ips=IPS,
                      timeout=400)
        said = linux.run("cat /tmp/out")[1]
    assert result.status == 1 and result.vms["remote"].tap.passed, result.explain("remote")
    assert re.search(r"slice 0: 10\.77\.0\.2 connected", said), said
