"""The cluster's network: one namespace with no way out, so that nothing of the machine's own network is touched.

The node's address, the bridge of the pods, the rules of kube-proxy and every connection of the tests' cluster live in
it and vanish with it. One door leads in: a relay on loopback (`tools.cluster.relay`).
"""

import subprocess
from pathlib import Path

from tools.cluster.errors import ClusterError

__all__ = ["NODE_IP", "create", "delete", "enter", "path"]

NODE_IP = "198.18.77.2"  # RFC 2544's range for tests: never a real host's address
_SETUP = (
    "ip link set lo up",
    # Both ends inside: an interface for the node's address that leads nowhere.
    "ip link add node0 type veth peer name node1",
    f"ip addr add {NODE_IP}/24 dev node0",
    "ip link set node0 up",
    "ip link set node1 up",
    # A route must exist, else an address of a Service is unreachable before it is translated.
    "ip route add default dev node0",
    "sysctl -q -w net.ipv4.ip_forward=1",
)


def path(name: str) -> Path:
    """Return the file by which a namespace is entered."""
    return Path("/run/netns") / name


def enter(name: str) -> list[str]:
    """Return the words before a command that runs in the namespace.

    Not `ip netns exec`: it mounts /sys anew and so hides the cgroups.
    """
    return ["nsenter", f"--net={path(name)}", "--"]


def create(name: str) -> None:
    """Make the namespace."""
    _run(["ip", "netns", "add", name])
    for line in _SETUP:
        _run([*enter(name), *line.split()])


def delete(name: str) -> None:
    """Remove the namespace and all that is in it; one that is gone already is fine."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False, timeout=30)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
