"""What this process may take of its machine: without it nobody can say whether what it takes is much.

A container is told its limits by its control group (version 2, which Kubernetes asks for); outside of one, and where
none is set, they are the machine's. See https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Gauge

__all__ = ["CPU_LIMIT", "MEMORY_LIMIT", "cpu_limit_cores", "memory_limit_bytes"]

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def memory_limit_bytes(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """Return the memory that this process may have, in bytes."""
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    set_ = (float(text) for text in _settings("memory.max", groups, own) if text != "max")
    return min([machine, *set_])


def cpu_limit_cores(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """Return the cores that this process may keep busy."""
    machine = float(len(os.sched_getaffinity(0)))
    parts = (text.split() for text in _settings("cpu.max", groups, own))
    return min([machine, *(int(quota) / int(period) for quota, period in parts if quota != "max")])


def _settings(name: str, groups: Path, own: Path) -> Iterator[str]:
    """Yield what a setting says in the group of this process and in all above it: the smallest of them holds."""
    try:
        [path] = [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")]
    except (OSError, ValueError):
        return  # no control groups of version 2
    folder = groups / path.lstrip("/")
    for one in (folder, *folder.parents):
        if one.is_relative_to(groups) and (file := one / name).is_file():
            yield file.read_text().strip()


CPU_LIMIT = Gauge("modelyard_process_cpu_limit_cores", "Cores that the process may keep busy")
CPU_LIMIT.set_function(cpu_limit_cores)
MEMORY_LIMIT = Gauge("modelyard_process_memory_limit_bytes", "Memory that the process may have")
MEMORY_LIMIT.set_function(memory_limit_bytes)
