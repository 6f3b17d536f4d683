"""What scripts/run does for VMs with remote memory: nodes by the configuration, started and wired."""

import subprocess

import pytest

from umbra_tools.base import BUILD, ROOT, Failure
from umbra_tools.config import Config
from umbra_tools.memnodes import MemoryNodes
from umbra_tools.run import needed_memory, parse, vm_size

TWO = """[umbra]
log_level = info
[vm a]
kernel = a.elf
memory = 64M
remote = 10.77.0.2, 10.77.0.3
remote_token = sesame
[vm b]
kernel = b.elf
memory = 1G
local = 96M
remote = 10.77.0.2
remote_token = sesame
"""
ONE = "[vm a]\nkernel = a.elf\nmemory = 16M\nremote = 10.77.0.1\nremote_token = x\n"


@pytest.fixture(scope="module", autouse=True)
def built():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", "memnode"], cwd=ROOT, check=True)


def nodes_of(text):
    config = Config(text)
    return config, MemoryNodes(config, lambda vm: vm_size(config, vm, "memory", "64M"))


def memtest(local, remote, *arguments):
    done = subprocess.run([BUILD / "interop/memtest", "--operations", "64", f"{local}:{remote}",
                           *arguments], stdout=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stdout


def test_none():
    config, nodes = nodes_of("[vm a]\nkernel = a.elf\n")
    assert not nodes and config.get("umbra", "network") is None
    with nodes:
        assert nodes.nic is None and not nodes.processes


def test_one_node():
    """On the NIC's own wire. The machine's address is beside the node's."""
    config, nodes = nodes_of(ONE)
    assert config.get("umbra", "network") == "10.77.0.2/24"
    with nodes:
        status, said = memtest(nodes.nic.port, nodes.nic.remote, "--node", "10.77.0.1", "--ip",
                               "10.77.0.2", "--token", "x")
        assert status == 0, said
    assert nodes.processes[0].poll() is not None


def test_two_nodes():
    """Behind a switch, each reached by its address; as many slices as VMs."""
    config, nodes = nodes_of(TWO)
    assert [(n.ip, n.port, n.memory) for n in nodes.nodes] == [
        ("10.77.0.2", 7471, [64, 1024]), ("10.77.0.3", 7471, [64])]
    command = list(map(str, nodes.nodes[0].command("1:2")))
    assert command[command.index("--slices") + 1] == "2"
    assert int(command[command.index("--size") + 1]) >= 2 * 1024
    with nodes:
        for node in nodes.nodes:
            status, said = memtest(nodes.nic.port, nodes.nic.remote, "--node", node.ip, "--ip",
                                   "10.77.0.1", "--token", "sesame")
            assert status == 0, said


def test_port():
    node = nodes_of(ONE.replace("10.77.0.1", "10.77.0.1:7000"))[1].nodes[0]
    assert "--ip 10.77.0.1 --port 7000 " in " ".join(map(str, node.command("1:2")))


def test_the_users_own_network():
    config, _ = nodes_of("[umbra]\nnetwork = dhcp\n" + ONE)
    assert config.get("umbra", "network") == "dhcp"


def test_one_token_for_a_node():
    with pytest.raises(Failure, match="10.77.0.2 .* 2 tokens"):
        nodes_of(TWO.replace("remote_token = sesame", "remote_token = other", 1))


def test_what_the_loader_will_refuse():
    """Is left to it."""
    assert not nodes_of(ONE.replace("10.77.0.1", "somewhere"))[1]


def test_memory_of_the_machine():
    """A VM with remote memory takes its local part, and a little for what knows of the rest."""
    assert needed_memory(Config(TWO)) == max(1024, 32 + 2 + 96 + 32 + 512)
    assert needed_memory(Config(TWO.replace("memory = 1G", "memory = 64G"))) == 32 + 2 + 96 + 2048 + 512


def test_options(capsys):
    options = parse(["--memory-node", "--wire", "17782:17781"])
    assert options.emulator == "qemu" and options.linux is None
    assert (options.wire.port, options.wire.remote) == (17782, 17781)
    for wrong in (["--memory-node", "--config", "x"], ["--wire", "17782"], ["--wire", "0:1"],
                  ["--memory-node", "--vcpus", "2"]):
        with pytest.raises(SystemExit):
            parse(wrong)
    assert "LOCAL:REMOTE" in capsys.readouterr().err
