"""Servers that end and come back under load: nobody who is asked through readiness gets less than an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from inference_fakes import Platform, eventually
from inference_process import RATE, InferenceProcess, good_requests, prediction_ids, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import Load, open_loop

DRAIN_S = 2.0
"""Many looks of whoever asks whether a server is ready, also on a machine that is busy."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_rolling_restart_of_two_replicas_fails_no_request(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    codes = []
    with processes(platform, bundles, tmp_path, 2, drain_s=DRAIN_S) as replicas:
        with open_loop([one.url for one in replicas], good_requests(), rate=RATE) as load:
            for replica in replicas:
                before = replica.process.pid
                codes.append(replica.terminate())
                load.wait_for(50)  # by the other alone
                replica.start()
                replica.wait_ready()
                eventually(lambda url=replica.url: url in load.rotation)
                load.wait_for(50)
                assert replica.process.pid != before
        eventually(lambda: prediction_ids(load) <= logged(platform), 30)

    assert load.failures == []
    assert codes == [0, 0]
    assert {one.target for one in load.outcomes} == {one.url for one in replicas}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kill_9_of_the_only_server_fails_requests_only_while_it_is_gone(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    with (
        processes(platform, bundles, tmp_path) as (server,),
        open_loop([server.url], good_requests(), rate=RATE) as load,
    ):
        load.wait_for(100)
        server.kill()
        down_from = len(load.outcomes)
        server.start()
        server.wait_ready()
        eventually(lambda: server.url in load.rotation)
        down_to = len(load.outcomes)
        load.wait_for(100)
        eventually(lambda: prediction_ids(load) <= logged(platform), 30)

    assert failures_between(load, 0, down_from, killed=server) == []
    assert failures_between(load, down_to, len(load.outcomes), killed=server) == []
    # What was answered is in the log, once: it was written before the answer left.
    assert len(prediction_ids(load)) == load.answered


def failures_between(load: Load, first: int, last: int, *, killed: InferenceProcess) -> list[str]:
    """Return what failed for another reason than that nobody was there."""
    gone = ("no target is ready", "ConnectError", "ReadError", "RemoteProtocolError", "WriteError")
    return [
        one.failure
        for one in load.outcomes[first:last]
        if one.failure and not (one.target in ("", killed.url) and one.failure.startswith(gone))
    ]


def logged(platform: Platform) -> set[str]:
    """Return the ids of the rows that drift has."""
    return {event["id"] for event in platform.drift.role("champion")}
