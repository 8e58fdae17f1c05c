"""Remove a cluster, alive or left behind: everything that bears its folder's name, found and not remembered.

A session may be killed at any point, so nothing here relies on a list of what was started. Processes are found by the
folder in their command line or by its control group, mounts by their path, the network by its name.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tools.cluster import network
from tools.cluster.errors import ClusterError
from tools.cluster.layout import Layout

__all__ = ["leftovers", "remove", "remove_stale", "stamp"]

CGROUPS = Path("/sys/fs/cgroup")
TIMEOUT_S = 30.0
_CONTAINER_LOGS = Path("/var/log/containers")  # the kubelet's fixed place of links to pods' logs


def stamp(pid: int) -> str:
    """Return what tells a process from a later one of the same number: its start, in ticks since boot."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{pid} gone"
    return f"{pid} {fields[19]}"


def remove_stale() -> None:
    """Remove the clusters whose session is dead."""
    for layout in Layout.all():
        owner = layout.owner.read_text() if layout.owner.is_file() else ""
        if owner and stamp(int(owner.split()[0])) != owner:
            remove(layout)


def remove(layout: Layout) -> None:
    """Remove everything of a cluster.

    Raises:
        ClusterError: something resists; the message names it.
    """
    _kill(layout)
    _unmount(layout.root)
    network.delete(layout.name)
    for group in _groups(layout):
        with contextlib.suppress(OSError):
            group.rmdir()
    for link in _container_logs(layout):
        link.unlink(missing_ok=True)
    shutil.rmtree(layout.etcd, ignore_errors=True)
    shutil.rmtree(layout.root, ignore_errors=True)
    if left := leftovers(layout):
        raise ClusterError(f"the cluster {layout.name} could not be removed; left are: {', '.join(left)}")


def leftovers(layout: Layout) -> list[str]:
    """Return what is left of a cluster on this machine."""
    return [
        *(f"process {pid}" for pid in _processes(layout)),
        *(f"mount {mount}" for mount in _mounts(layout.root)),
        *(f"control group {group}" for group in _groups(layout)),
        *(f"link {link}" for link in _container_logs(layout)),
        *(str(path) for path in (network.path(layout.name), layout.etcd, layout.root) if path.exists()),
    ]


def _kill(layout: Layout) -> None:
    # Again and again: between a look and a kill a supervisor may have started another.
    deadline = time.monotonic() + TIMEOUT_S
    while pids := list(_processes(layout)):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of {layout.name} do not die: {pids}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(layout: Layout) -> Iterator[int]:
    needle = str(layout.root).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # ended while we looked
            in_group = f"/{layout.name}/" in (entry / "cgroup").read_text()
            if (in_group or needle in (entry / "cmdline").read_bytes()) and not _is_zombie(entry):
                yield int(entry.name)


def _is_zombie(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _mounts(root: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == str(root) or point.startswith(f"{root}/")]


def _unmount(root: Path) -> None:
    for point in reversed(_mounts(root)):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False, timeout=TIMEOUT_S)


def _groups(layout: Layout) -> list[Path]:
    """Return the cluster's control groups, innermost first; each controller has its own tree in version 1."""
    tops = [CGROUPS / layout.name, *(tree / layout.name for tree in CGROUPS.iterdir() if tree.is_dir())]
    return [Path(path) for top in tops if top.is_dir() for path, _, _ in os.walk(top, topdown=False)]


def _container_logs(layout: Layout) -> list[Path]:
    if not _CONTAINER_LOGS.is_dir():
        return []
    root = str(layout.root)
    return [link for link in _CONTAINER_LOGS.iterdir() if link.is_symlink() and str(link.readlink()).startswith(root)]
