"""Peers that are away under load: inference serves what it last knew, keeps what it has to tell, and catches up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inference_fakes import Platform, eventually
from inference_process import (
    MODEL,
    RATE,
    InferenceProcess,
    answers_by_version,
    good_requests,
    prediction_ids,
    processes,
)
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.links import Link, link_to
from modelyard_common.testing.open_loop import open_loop

IN_A_HURRY = {"resync_s": 0.5, "stale_after_s": 1.0, "poll_s": 0.1}
AWAY_S = 4.0
"""Longer than every one of them."""
SILENT_S = 20.0
"""Longer than the watch listens to silence, and than a call waits for its answer."""
MINUTE_S = 60.0
"""As long as a peer may be away while all requests are answered; longer than any pause before it is tried again."""
SLOW = [pytest.mark.slow, pytest.mark.timeout(200)]
WAYS_TO_LEAVE = [
    pytest.param(Link.cut, AWAY_S, id="refused"),
    pytest.param(Link.stall, SILENT_S, id="silent", marks=SLOW),
    pytest.param(Link.cut, MINUTE_S, id="refused for a minute", marks=SLOW),
]


@pytest.mark.parametrize(("leave", "away_s"), WAYS_TO_LEAVE)
def test_while_the_registry_is_away_requests_are_answered_and_then_its_news_is_heard(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path, leave: Callable[[Link], None], away_s: float
) -> None:
    with (
        link_to(platform.registry_url) as link,
        processes(platform, bundles, tmp_path, registry_url=link.url, **IN_A_HURRY) as (server,),
        open_loop([server.url], good_requests(), rate=RATE) as load,
    ):
        load.wait_for(20)
        leave(link)
        left_at = time.monotonic()
        revision = platform.registry.route(MODEL, str(bundles[1].digest)).revision  # nobody hears of it
        eventually(lambda: " s old: " in checks_of(server)["routing"], 60)
        load.wait_for(round(RATE * (away_s - (time.monotonic() - left_at))))
        told, old = checks_of(server), server.gauge("modelyard_inference_routing_age_seconds")
        link.mend()
        eventually(lambda: checks_of(server)["routing"] == "ok", 60)
        eventually(lambda: revision in {one.revision for one in platform.registry.reports}, 60)
        load.wait_for(20)

    assert load.failures == []
    assert (told["models"], told["spool"], told["drift"]) == ("ok", "ok", "ok")
    assert old > 1.0
    assert answers_by_version(load).keys() == {str(bundle.digest) for bundle in bundles}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_server_that_starts_while_the_registry_is_away_serves_what_it_served(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    with (
        link_to(platform.registry_url) as link,
        processes(platform, bundles, tmp_path, registry_url=link.url, **IN_A_HURRY) as (server,),
    ):
        link.cut()
        codes = [server.terminate()]
        server.start()
        server.wait_ready()
        with open_loop([server.url], good_requests(), rate=RATE) as load:
            load.wait_for(100)

    assert codes == [0]
    assert load.failures == []


@pytest.mark.parametrize(("leave", "away_s"), WAYS_TO_LEAVE)
def test_while_drift_is_away_records_gather_on_disk_and_then_each_is_delivered_once(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path, leave: Callable[[Link], None], away_s: float
) -> None:
    pending: list[float] = []
    with (
        link_to(platform.drift_url) as link,
        processes(platform, bundles, tmp_path, drift_url=link.url, spool_segment_bytes=65536) as (server,),
        open_loop([server.url], good_requests(), rate=RATE) as load,
    ):
        load.wait_for(20)
        leave(link)
        eventually(lambda: "wait on disk" in checks_of(server)["drift"], 60)
        for _ in range(4):
            load.wait_for(round(RATE * away_s / 4))
            pending.append(server.gauge("modelyard_inference_spool_pending_bytes"))
        ready = server.get("/health/ready").status_code
        link.mend()
        eventually(lambda: checks_of(server)["drift"] == "ok", 60)
        load.wait_for(20)
        load.end()
        # The gauge is a second old at most, and may be of a moment in which nothing waited.
        eventually(lambda: prediction_ids(load) == {event["id"] for event in platform.drift.role("champion")}, 60)
        eventually(lambda: server.gauge("modelyard_inference_spool_pending_bytes") == 0, 60)

        assert load.failures == []
        assert ready == 200
        assert pending == sorted(pending) and pending[0] < pending[-1]
        assert prediction_ids(load) == {event["id"] for event in platform.drift.role("champion")}
        assert server.gauge("modelyard_inference_events_dropped_total") == 0
        # What was delivered takes no disk: the file that is written is left, and no other.
        assert len(list((tmp_path / "server-0/data/inference/spool").glob("*.events"))) <= 2


def checks_of(server: InferenceProcess) -> dict[str, Any]:
    """Return what the server says of itself."""
    checks: dict[str, Any] = server.get("/health/ready").json()["checks"]
    return checks
