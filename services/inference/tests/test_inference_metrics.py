"""What inference's metrics say of what it serves, and that they do not grow with the years."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from inference_fakes import Platform, a_server, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import ModelyardError
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.adapters.metrics import PrometheusObserver, show_lanes
from modelyard_inference.domain.ports import Run
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

HOUR_S = 3600.0


def scraped(http: httpx.Client, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"modelyard_inference_{name}"
    }


def series_of(model: str) -> int:
    return sum(
        sample.labels.get("model") == model and "_created" not in sample.name
        for family in REGISTRY.collect()
        for sample in family.samples
    )


def test_what_is_in_force_is_shown(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        before = eventually(lambda: scraped(http, "served_number"))
        platform.registry.route("power", str(bundles[0].digest), str(bundles[1].digest), weight=20)
        after = eventually(lambda: (seen := scraped(http, "served_number"))["power", "candidate"] and seen)

        assert before == {("power", "champion"): 1, ("power", "candidate"): 0}
        assert after == {("power", "champion"): 1, ("power", "candidate"): 2}
        assert scraped(http, "routing_revision") == {("power",): 2}
        assert scraped(http, "candidate_tripped_state") == {("power",): 0}
        assert scraped(http, "models_waiting_count") == {(): 0}
        assert scraped(http, "spool_limit_bytes")[()] > scraped(http, "spool_size_bytes")[()]


def test_a_loss_of_events_is_counted_from_zero(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        assert {reason for (reason,) in scraped(http, "events_dropped_total")} == {"full", "disk", "form"}


def test_a_version_is_forgotten_an_hour_after_it_was_unloaded() -> None:
    observer = PrometheusObserver()
    observer.answered("aged", 1, "champion", 1, 0.01)
    observer.failed("aged", 2, "candidate", "late")
    all_of_them = series_of("aged")

    observer.forget_unloaded([("aged", 1)], now_s=0.0)
    observer.forget_unloaded([("aged", 1)], now_s=HOUR_S - 1)
    assert series_of("aged") == all_of_them

    observer.forget_unloaded([("aged", 1)], now_s=HOUR_S)
    assert REGISTRY.get_sample_value(
        "modelyard_inference_requests_total",
        {"model": "aged", "version": "1", "role": "champion", "outcome": "answered"},
    )
    assert "2" not in {
        sample.labels["version"]
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("model") == "aged"
    }


def test_a_version_that_comes_back_is_counted_on() -> None:
    observer = PrometheusObserver()
    observer.answered("back", 1, "champion", 1, 0.01)
    observer.forget_unloaded([], now_s=0.0)
    observer.forget_unloaded([("back", 1)], now_s=HOUR_S / 2)
    observer.forget_unloaded([], now_s=HOUR_S)
    observer.answered("back", 1, "champion", 1, 0.01)

    labels = {"model": "back", "version": "1", "role": "champion", "outcome": "answered"}
    assert REGISTRY.get_sample_value("modelyard_inference_requests_total", labels) == 2


def test_years_of_versions_do_not_add_up() -> None:
    observer = PrometheusObserver()
    counts = []
    for number in range(1, 201):
        observer.answered("years", number, "candidate", 1, 0.01)
        observer.answered("years", number, "champion", 1, 0.01)
        observer.failed("years", number, "candidate", "late")
        observer.forget_unloaded([("years", number)], now_s=number * HOUR_S)
        counts.append(series_of("years"))

    assert counts[-1] == counts[4]


def test_waiting_requests_and_hanging_threads_are_shown() -> None:
    lane = ThreadLane("narrow", threads=1, depth=8)
    end = threading.Event()
    with ThreadPoolExecutor(2) as callers:
        hanging = callers.submit(lane.call, lambda: end.wait(30), 0.2)
        with pytest.raises(ModelyardError):
            hanging.result(10)
        show_lanes(lane)
        lost = REGISTRY.get_sample_value("modelyard_inference_lane_lost_threads", {"lane": "narrow"})
        end.set()

    assert lost == 1
    assert REGISTRY.get_sample_value("modelyard_inference_lane_waiting_requests", {"lane": "narrow"}) == 0
    lane.close()


def test_a_model_that_is_gone_leaves_no_stages_and_no_batches() -> None:
    observer = PrometheusObserver()
    observer.answered("forgotten", 1, "champion", 2, 0.01)
    observer.ran(Run("forgotten", 1, 1, 0.01, 2, {"champion": ([2], [0.01])}, [0.0]))
    observer.took("forgotten", 0.0, 0.0)
    labels = {"model": "forgotten"}
    before = REGISTRY.get_sample_value("modelyard_inference_batch_rows_sum", labels)

    observer.forget_unloaded([], now_s=0.0)
    observer.forget_unloaded([], now_s=HOUR_S)

    assert before == 2
    assert series_of("forgotten") == 0
