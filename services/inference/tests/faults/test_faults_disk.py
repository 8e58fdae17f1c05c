"""A disk that fills up under load: predictions go on, what is not written down is counted, and room is used again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from inference_fakes import Platform, eventually
from inference_process import RATE, InferenceProcess, good_requests, prediction_ids, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop

DISK_MIB = 16


@contextmanager
def a_small_disk(folder: Path) -> Iterator[None]:
    """Put a file system of its own under a folder."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "modelyard-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("this test fills a disk of its own, and may not mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as handle, suppress(OSError):
        while True:
            handle.write(bytes(4096))
    return ballast


def dropped(server: InferenceProcess) -> float:
    return server.gauge("modelyard_inference_events_dropped_total")


@pytest.mark.parametrize("count", [1, 2], ids=["one process", "two workers"])
def test_a_full_disk_costs_records_and_no_prediction(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path, count: int
) -> None:
    disk = tmp_path / "server-0" / "data" / "inference"
    with a_small_disk(disk), processes(platform, bundles, tmp_path, processes=count) as (server,):
        with open_loop([server.url], good_requests(), rate=RATE) as load:
            load.wait_for(50)
            ballast = fill(disk)
            eventually(lambda: dropped(server) > 50, 30)
            problem = eventually(lambda: spool_problem(server), 30)
            ready = server.get("/health/ready").status_code
            ballast.unlink()
            lost = eventually(lambda: dropped(server) if spool_problem(server) is None else None, 30)
            load.wait_for(100)
        answered = prediction_ids(load)
        eventually(lambda: len(platform.drift.events) + lost >= len(answered), 30)
        after = dropped(server)

    assert load.failures == []
    assert (problem, ready) == ("the spool cannot be written: No space left on device", 200)
    assert after == lost, "with room again nothing is dropped"
    assert len(platform.drift.events) + lost == len(answered)
    assert "Traceback" not in server.log


def spool_problem(server: InferenceProcess) -> str | None:
    """Return what is wrong with the spools of all workers."""
    told: str | None = server.get("/v1/served").json()["spool"].get("problem")
    return told
