"""A process knows what it may take: of its container, of the containers around it, or of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from modelyard_common.capacity import cpu_limit_cores, memory_limit_bytes
from modelyard_common.metrics import render

MACHINE_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MACHINE_CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "groups/pod/container").mkdir(parents=True)
    return tmp_path / "groups"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own"
    file.write_text("4:memory:/else\n0::/pod/container\n")
    return file


@pytest.mark.parametrize(
    ("pod", "container", "memory", "cores"),
    [
        ({}, {"memory.max": "1048576", "cpu.max": "50000 100000"}, 1_048_576, 0.5),
        (
            {"memory.max": "4096", "cpu.max": "25000 100000"},
            {"memory.max": "8192", "cpu.max": "max 100000"},
            4096,
            0.25,
        ),
        ({}, {"memory.max": "max", "cpu.max": "max 100000"}, MACHINE_BYTES, MACHINE_CORES),
        ({}, {"memory.max": str(2**62), "cpu.max": "99900000 100000"}, MACHINE_BYTES, MACHINE_CORES),
        ({}, {}, MACHINE_BYTES, MACHINE_CORES),
    ],
    ids=["container", "pod", "no-limit", "more-than-there-is", "not-controlled"],
)
def test_the_smallest_limit_holds(
    groups: Path, own: Path, pod: dict[str, str], container: dict[str, str], memory: float, cores: float
) -> None:
    for folder, settings in ((groups / "pod", pod), (groups / "pod/container", container)):
        for name, text in settings.items():
            (folder / name).write_text(f"{text}\n")

    assert (memory_limit_bytes(groups, own), cpu_limit_cores(groups, own)) == (memory, cores)


def test_a_limit_outside_of_the_groups_is_nobodys(groups: Path, own: Path) -> None:
    (groups.parent / "memory.max").write_text("1\n")

    assert memory_limit_bytes(groups, own) == MACHINE_BYTES


@pytest.mark.parametrize("text", [None, "4:memory:/else\n"], ids=["no-proc", "only-version-1"])
def test_without_control_groups_the_machine_is_the_limit(groups: Path, tmp_path: Path, text: str | None) -> None:
    own = tmp_path / "none"
    if text is not None:
        own.write_text(text)

    assert (memory_limit_bytes(groups, own), cpu_limit_cores(groups, own)) == (MACHINE_BYTES, MACHINE_CORES)


def test_every_scrape_says_what_this_process_may_take() -> None:
    text = render()[0].decode()

    lines = dict(line.split() for line in text.splitlines() if line.startswith("modelyard_process_"))
    assert float(lines["modelyard_process_cpu_limit_cores"]) == cpu_limit_cores()
    assert float(lines["modelyard_process_memory_limit_bytes"]) == memory_limit_bytes()
