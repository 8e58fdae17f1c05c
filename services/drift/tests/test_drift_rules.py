"""The rules of ingest and processing from outside, on both databases: time, bounds, faults, restarts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from drift_fakes import MODEL, START, V1, V2, World, spec
from modelyard_common.db import Database
from modelyard_common.pagination import encode_cursor
from modelyard_drift.usecases.ports import Policy
from modelyard_drift.usecases.retain import Retain
from sqlalchemy import event
from sqlalchemy.exc import OperationalError


def follow(world: World, **changes: Any) -> None:
    """Put another manifest in force."""
    [policy] = world.registry.known
    digest = f"sha256:{int(policy.spec_digest[-4:], 16) + 1:064x}"
    world.registry.known = [replace(policy, spec=spec(**changes), spec_digest=digest)]
    assert world.refresh()


def at(minute: int) -> str:
    return (START + timedelta(minutes=minute)).isoformat()


def timed(world: World, *minutes: int) -> list[dict[str, Any]]:
    """Rows at these event times."""
    return [row | {"event_time": at(minute)} for row, minute in zip(world.rows(len(minutes)), minutes, strict=True)]


def spans(world: World) -> list[tuple[int, str, str]]:
    windows = world.get("windows")["items"][::-1]
    return [(w["rows"], w["event_time_from"][11:16], w["event_time_until"][11:16]) for w in windows]


class TestEventTime:
    @pytest.mark.parametrize("batch", [1, 3, 100], ids=["one by one", "in threes", "at once"])
    def test_gaps_and_late_rows_give_the_same_windows_whatever_the_batches(
        self, make_world: Callable[..., World], batch: int
    ) -> None:
        world = make_world()
        follow(world, monitor__window={"for": "1h"})
        rows = timed(world, 30, 10, 89, 90, 95, 400, 399, 20, 459, 460)
        for start in range(0, len(rows), batch):
            world.send(rows[start : start + batch])
        assert spans(world) == [(3, "00:10", "01:29"), (2, "01:30", "01:35"), (4, "00:20", "07:39")]
        assert world.get("status")["open_window"]["rows"] == 1

    def test_the_watermark_never_goes_back(self, world: World) -> None:
        world.send(timed(world, 100))
        world.send(timed(world, 5))
        assert datetime.fromisoformat(world.get("status")["watermark"]) == START + timedelta(minutes=100)

    @pytest.mark.parametrize(("ahead", "accepted"), [("00:10:00", 1), ("00:10:01", 0)])
    def test_ten_minutes_ahead_of_the_clock_are_the_edge(
        self, make_world: Callable[..., World], ahead: str, accepted: int
    ) -> None:
        world = make_world()
        follow(world, monitor__replay=False)
        receipt = world.send([world.rows(1)[0] | {"event_time": f"2026-01-01T{ahead}Z"}])
        assert (receipt["accepted"], receipt["refused"]) == (accepted, 1 - accepted)

    def test_a_replaying_model_may_be_years_ahead(self, world: World) -> None:
        assert world.send([world.rows(1)[0] | {"event_time": "2031-01-01T00:00:00Z"}])["accepted"] == 1

    @pytest.mark.parametrize("chunk_rows", [7, 1000])
    def test_a_decision_is_dated_by_its_window_however_far_the_log_has_come(
        self, make_world: Callable[..., World], chunk_rows: int
    ) -> None:
        world = make_world(chunk_rows=chunk_rows)
        world.send(world.rows(100, heat=3.0) + world.rows(450))
        [episode] = world.get("episodes")["items"]
        assert datetime.fromisoformat(episode["opened_at"]) == START + timedelta(minutes=99)
        assert datetime.fromisoformat(episode["closed_at"]) == START + timedelta(minutes=299)
        assert episode["decision"]["at_event_time"] == episode["opened_at"]

    def test_a_manifest_that_asks_for_smaller_windows_ends_the_open_one(self, world: World) -> None:
        world.send(world.rows(80))
        follow(world, monitor__window={"rows": 50})
        world.send(world.rows(60))
        assert [w["rows"] for w in world.get("windows")["items"]] == [50, 80]
        assert world.get("status")["open_window"]["rows"] == 10


class TestLabels:
    def test_a_correction_replaces_the_label_in_the_performance_of_its_window(self, world: World) -> None:
        events = world.rows(100)
        world.send(events)
        for revision, value in ((0, 0.0), (1, 1.0)):
            world.label(
                [
                    {"prediction_id": e["id"], "value": e["prediction"] == revision, "revision": revision}
                    for e in events
                    if e["prediction"] == 1
                ]
            )
            [entry] = world.get("windows")["items"][0]["performance"]
            assert entry["value"] == value, revision

    def test_a_lower_revision_with_another_value_is_refused(self, world: World) -> None:
        world.send(world.rows(1))
        world.label([{"prediction_id": "p0", "value": 1, "revision": 3}])
        refused = world.label([{"prediction_id": "p0", "value": 0, "revision": 2}])
        assert refused.status_code == 409
        assert "p0/0 has another label of revision 3" in refused.json()["errors"][0]["message"]

    def test_a_full_waiting_room_still_takes_labels_of_rows_that_are_here(
        self, make_world: Callable[..., World]
    ) -> None:
        world = make_world(max_waiting=2)
        world.send(world.rows(3))
        assert world.label([{"prediction_id": name, "value": 1} for name in ("x", "y")]).json()["waiting"] == 2
        assert world.label([{"prediction_id": "z", "value": 1}]).status_code == 429
        assert world.label([{"prediction_id": "p0", "value": 1}, {"prediction_id": "z", "value": 1}]).status_code == 429
        assert world.label([{"prediction_id": "p0", "value": 1}]).json()["accepted"] == 1
        assert world.label([{"prediction_id": "x", "value": 1}]).json()["unchanged"] == 1
        status = world.get("status")
        assert (status["labels"], status["labels_waiting"]) == (1, 2)

    def test_labels_whose_rows_never_came_leave_the_waiting_room_with_the_rows_of_their_time(
        self, make_world: Callable[..., World]
    ) -> None:
        world = make_world(max_waiting=1)
        world.label([{"prediction_id": "never", "value": 1}])
        world.send(world.rows(200))
        assert world.label([{"prediction_id": "early", "value": 1}]).status_code == 429
        Retain(world.services.browse.transactions, keep_rows=50)()
        assert world.get("status")["labels_waiting"] == 0
        assert world.label([{"prediction_id": "early", "value": 1}]).json()["waiting"] == 1

    def test_a_label_that_is_no_number_is_refused_where_numbers_are_predicted(
        self, make_world: Callable[..., World]
    ) -> None:
        world = make_world()
        follow(world, **REGRESSION)
        refused = world.label([{"prediction_id": "p0", "value": 1.5}, {"prediction_id": "p1", "value": "n/a"}])
        assert refused.status_code == 422
        assert [error["path"] for error in refused.json()["errors"]] == ["labels[1].value"]
        assert world.get("status")["labels_waiting"] == 0

    def test_a_label_that_was_taken_before_the_policy_was_known_holds_no_window_up(
        self, make_world: Callable[..., World]
    ) -> None:
        world = make_world()
        events = world.rows(100)
        for row in events[:60]:
            row["model"] = "other"
        world.send(events[:60])
        labels = [{"prediction_id": "p0", "value": "n/a"}] + [
            {"prediction_id": f"p{place}", "value": float(events[place]["prediction"])} for place in range(1, 60)
        ]
        assert world.client.post("/v1/models/other/labels", json={"labels": labels}).status_code == 200
        world.registry.known.append(
            Policy("other", spec(**REGRESSION, monitor__window={"rows": 60}), "sha256:" + "4" * 64)
        )
        world.refresh()
        world.turn()
        [window] = world.client.get("/v1/models/other/windows").json()["items"]
        assert [(p["metric"], p["value"], p["rows"]) for p in window["performance"]] == [("rmse", 0.0, 59)]


REGRESSION: dict[str, Any] = {
    "task": "regression",
    "data": {"source": {"uri": "dataset://sha256:" + "a" * 64}, "target": "y"},
    "train": {"recipe": {"estimator": "ridge"}},
    "monitor__performance": {"metric": "rmse"},
}


class TestTwoProcesses:
    def test_two_processes_on_one_database_count_and_command_once(self, make_world: Callable[..., World]) -> None:
        world, other = make_world(chunk_rows=20), make_world(chunk_rows=20)
        post(world, world.rows(400, heat=3.0))
        together = threading.Barrier(2)

        def work(one: World) -> None:
            together.wait(timeout=30)
            for _ in range(3):
                one.turn()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, (world, other)))
        assert [w["rows"] for w in world.get("windows")["items"]] == [100] * 4
        status = world.get("status")
        assert (status["processed_seq"], status["open_window"]["rows"], status["note"]) == (400, 0, "")
        [episode] = other.get("episodes")["items"]
        assert episode["windows"] == 4
        assert {c.id for c in [*world.training.commands, *other.training.commands]} == {episode["decision"]["id"]}

    def test_batches_that_arrive_at_two_processes_at_once_are_each_in_the_log_once(
        self, make_world: Callable[..., World]
    ) -> None:
        worlds = [make_world(), make_world()]
        rows = worlds[0].rows(120)
        parts = [rows[start : start + 20] for start in range(0, 120, 20)]
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(post, world, part) for part in parts for world in worlds]
            receipts = [one.result(timeout=60) for one in sent]
        assert sum(receipt["accepted"] for receipt in receipts) == 120
        assert sum(receipt["duplicates"] for receipt in receipts) == 120
        ids = worlds[0].get("predictions")["items"]
        assert sorted(ids) == sorted(row["id"] for row in rows)
        assert worlds[1].get("status")["ingest_seq"] == 120


def post(world: World, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Send events without processing them."""
    response = world.client.post("/v1/events", json={"source": "test", "events": events})
    assert response.status_code == 200, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


class TestFaults:
    def test_what_was_acknowledged_is_processed_by_the_next_process(self, make_world: Callable[..., World]) -> None:
        first = make_world()
        events = first.rows(150)
        post(first, events)
        labels = [{"prediction_id": e["id"], "value": e["prediction"]} for e in events]
        assert first.client.post(f"/v1/models/{MODEL}/labels", json={"labels": labels}).status_code == 200
        second = make_world()
        second.turn()
        [window] = second.get("windows")["items"]
        assert (window["rows"], window["performance"][0]["rows"]) == (100, 100)
        assert second.get("status")["open_window"]["rows"] == 50

    @pytest.mark.parametrize("what", ["events", "labels"])
    def test_a_commit_that_fails_is_503_and_leaves_nothing_behind(
        self, any_database: Database, world: World, what: str
    ) -> None:
        world.send(world.rows(5))
        before = world.get("status")
        bodies: dict[str, tuple[str, dict[str, Any]]] = {
            "events": ("/v1/events", {"source": "t", "events": world.rows(5)}),
            "labels": (f"/v1/models/{MODEL}/labels", {"labels": [{"prediction_id": "p0", "value": 1}]}),
        }
        path, body = bodies[what]
        with failing_commits(any_database):
            refused = world.client.post(path, json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        assert world.get("status") == before
        assert world.client.post(path, json=body).json()["accepted"] == len(body[what])

    def test_a_commit_that_fails_while_processing_is_made_up_for(self, any_database: Database, world: World) -> None:
        post(world, world.rows(100, heat=3.0))
        with failing_commits(any_database):
            world.turn()
        assert world.get("windows")["items"] == []
        assert "does not answer" in world.get("status")["note"]
        world.turn()
        assert [w["rows"] for w in world.get("windows")["items"]] == [100]
        assert world.get("status")["note"] == ""
        assert len(world.training.commands) == 1

    def test_a_model_with_a_broken_baseline_holds_back_no_other(self, make_world: Callable[..., World]) -> None:
        world = make_world()
        world.registry.known.append(Policy("another", spec(), "sha256:" + "3" * 64))
        world.refresh()
        world.registry.baselines[V2] = "{"
        broken = world.rows(10, model="another", champion=V2, version=V2)
        world.send(broken + world.rows(10))
        assert world.get("status")["open_window"]["rows"] == 10
        note = world.client.get("/v1/models/another/status").json()["note"]
        assert note.startswith("processing failed (")
        assert V2 not in note


@contextmanager
def failing_commits(database: Database) -> Iterator[None]:
    """Let every commit meet a full disk."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"

    def refuse(_connection: Any) -> None:
        raise OperationalError("COMMIT", {}, full)

    event.listen(database.engine, "commit", refuse)
    try:
        yield
    finally:
        event.remove(database.engine, "commit", refuse)


class TestWrongInput:
    @pytest.mark.parametrize(
        ("change", "path"),
        [
            ({"id": ""}, "id"),
            ({"id": "x" * 199}, "id"),
            ({"id": "a\0b"}, "id"),
            ({"routing_key": "a\0b"}, "routing_key"),
            ({"revision": -1}, "revision"),
            ({"revision": 2**60}, "revision"),
            ({"role": "guest"}, "role"),
            ({"champion": "latest"}, "champion"),
            ({"event_time": "2026-01-01T00:00:00"}, "event_time"),
            ({"score": "high"}, "score"),
            ({"colour": 1}, "colour"),
        ],
        ids=str,
    )
    def test_a_wrong_event_is_refused_by_the_name_of_its_field(
        self, world: World, change: dict[str, Any], path: str
    ) -> None:
        rows = world.rows(2)
        response = world.client.post("/v1/events", json={"source": "t", "events": [rows[0], rows[1] | change]})
        assert response.status_code == 422
        assert response.json()["errors"][0]["path"] == f"events[1].{path}"
        assert world.get("predictions")["items"] == []

    @pytest.mark.parametrize(
        ("labels", "path"),
        [
            ([], "labels"),
            ([{"prediction_id": "p", "value": 1}] * 10_001, "labels"),
            ([{"prediction_id": "p" * 199, "value": 1}], "labels[0].prediction_id"),
            ([{"prediction_id": "p\0", "value": 1}], "labels[0].prediction_id"),
            ([{"prediction_id": "p", "value": 1, "revision": 2**31}], "labels[0].revision"),
            ([{"prediction_id": "p", "value": 1, "revision": -1}], "labels[0].revision"),
            ([{"prediction_id": "p", "value": [1]}], "labels[0].value"),
        ],
        ids=["none", "too many", "long id", "nul", "large revision", "negative revision", "list"],
    )
    def test_a_wrong_label_is_refused_by_the_name_of_its_field(
        self, world: World, labels: list[dict[str, Any]], path: str
    ) -> None:
        response = world.label(labels)
        assert response.status_code == 422
        assert response.json()["errors"][0]["path"].startswith(path)

    def test_more_events_than_a_batch_may_hold_are_refused(self, world: World) -> None:
        rows = world.rows(1) * 5001
        response = world.client.post("/v1/events", json={"source": "t", "events": rows})
        assert (response.status_code, response.json()["errors"][0]["path"]) == (422, "events")

    def test_the_longest_ids_that_are_taken_meet(self, world: World) -> None:
        longest = "x" * 198
        world.send([world.rows(1)[0] | {"id": f"{longest[2:]}/0"}])
        assert world.label([{"prediction_id": longest[2:], "value": 1}]).json()["waiting"] == 0
        assert world.label([{"prediction_id": longest, "value": 1}]).json()["waiting"] == 1

    @pytest.mark.parametrize(
        "path", ["status", "windows", "episodes", "decisions", "predictions", "reports/w0", "comparison?revision=1"]
    )
    def test_a_model_that_nobody_knows_is_not_found(self, world: World, path: str) -> None:
        response = world.client.get(f"/v1/models/nobody/{path}")
        assert response.status_code == 404
        assert "'nobody'" in response.json()["detail"]


class TestPages:
    @pytest.mark.parametrize("path", ["windows", "episodes", "decisions"])
    def test_a_list_is_walked_by_its_cursor_to_its_end(self, world: World, path: str) -> None:
        for name in ("heat", "noise"):
            world.send(world.rows(100, **{name: 3.0}))
        whole = world.get(path)["items"]
        assert len(whole) == 2
        first = world.get(path, limit=1)
        second = world.get(path, limit=1, cursor=first["next_cursor"])
        assert first["items"] + second["items"] == whole
        assert world.get(path, limit=1, cursor=second["next_cursor"]) == {"items": [], "next_cursor": None}

    @pytest.mark.parametrize("path", ["windows", "episodes", "decisions", "predictions"])
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [({"cursor": encode_cursor("run-1")}, "cursor"), ({"cursor": "?"}, "cursor"), ({"limit": 0}, "limit")],
        ids=["of another list", "made up", "limit"],
    )
    def test_a_wrong_page_is_refused_by_name(self, world: World, path: str, wrong: dict[str, Any], named: str) -> None:
        response = world.client.get(f"/v1/models/{MODEL}/{path}", params=wrong)
        assert response.status_code == 422
        assert response.json()["errors"][0]["path"].endswith(named)


def test_a_model_without_a_baseline_is_reported_without_scores(world: World) -> None:
    other = "sha256:" + "9" * 64
    world.send(world.rows(100, champion=other, version=other))
    report = world.get("reports/w0")
    assert (report["reference_rows"], report["distributions"], report["window"]["features"]) == (0, {}, [])
    page = world.client.get(f"/v1/models/{MODEL}/reports/w0", params={"format": "html"})
    assert page.status_code == 200
    assert V1 not in page.text
