"""Drift from outside: what goes in by its API, what it finds, what it decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from drift_fakes import MODEL, V1, V2, FakeRegistry, World, spec
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.errors import Conflict, Unavailable
from modelyard_drift.adapters.store import SqlWriter
from modelyard_drift.adapters.tables import Base
from modelyard_drift.usecases.ports import Policy
from modelyard_drift.usecases.retain import Retain


def test_the_migrated_schema_is_the_one_that_the_code_uses(any_database: Database) -> None:
    upgrade(any_database, "modelyard_drift")
    with any_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


class TestIngest:
    def test_events_sent_twice_are_counted_once(self, world: World) -> None:
        events = world.rows(30)
        assert world.send(events)["accepted"] == 30
        again = world.send(events)
        assert (again["accepted"], again["duplicates"]) == (0, 30)
        status = world.get("status")
        assert (status["requests"], status["open_window"]["rows"]) == (30, 30)

    def test_a_shadow_copy_and_a_failed_candidate_count_no_request(self, world: World) -> None:
        [event] = world.rows(1)
        shadow = event | {"role": "shadow", "version": V2}
        failed = event | {"role": "candidate", "version": V2, "error": "late", "features": {}, "prediction": None}
        receipt = world.send([event, shadow, failed])
        assert receipt["accepted"] == 3
        status = world.get("status")
        assert (status["requests"], status["open_window"]["rows"]) == (1, 1)

    def test_a_future_event_time_is_refused_unless_the_model_replays(self, make_world: Callable[..., World]) -> None:
        world = make_world()
        world.registry.known = [Policy(MODEL, spec(monitor__replay=False), "sha256:" + "5" * 64)]
        world.refresh()
        late, early = world.rows(1)[0], world.rows(1)[0] | {"event_time": "2026-01-01T00:10:01Z"}
        receipt = world.send([late, early])
        assert (receipt["accepted"], receipt["refused"]) == (1, 1)

    def test_what_was_committed_is_processed_once_the_registry_tells_the_policy(
        self, make_world: Callable[..., World]
    ) -> None:
        world = make_world()
        world.registry.away = True
        world.send(world.rows(10))
        assert "cannot be reached" in world.get("status")["note"]
        world.registry.away = False
        world.turn()
        status = world.get("status")
        assert (status["note"], status["open_window"]["rows"]) == ("", 10)

    def test_a_wrong_event_is_named(self, world: World) -> None:
        [event] = world.rows(1)
        response = world.client.post("/v1/events", json={"source": "t", "events": [event | {"latency_ms": -1}]})
        assert response.status_code == 422
        assert response.json()["errors"][0]["path"] == "events[0].latency_ms"


class TestLabels:
    def test_the_same_label_again_changes_nothing(self, world: World) -> None:
        world.send(world.rows(3))
        labels = [{"prediction_id": f"p{i}", "value": 1} for i in range(3)]
        assert world.label(labels).json()["accepted"] == 3
        again = world.label(labels).json()
        assert (again["accepted"], again["unchanged"]) == (0, 3)
        assert world.get("status")["labels"] == 3

    def test_a_contradiction_needs_a_higher_revision_and_spoils_the_whole_batch(self, world: World) -> None:
        world.send(world.rows(2))
        world.label([{"prediction_id": "p0/0", "value": 1}])
        refused = world.label([{"prediction_id": "p1/0", "value": 0}, {"prediction_id": "p0/0", "value": 0}])
        assert refused.status_code == 409
        assert refused.json()["errors"][0]["path"] == "labels[1]"
        assert world.get("status")["labels"] == 1
        assert world.label([{"prediction_id": "p0/0", "value": 0, "revision": 1}]).json()["accepted"] == 1
        assert labelled(world)["__label"] == [0]

    def test_a_label_that_comes_first_waits_for_its_prediction(self, world: World) -> None:
        events = world.rows(2)
        assert world.label([{"prediction_id": "p1/0", "value": 1}]).json()["waiting"] == 1
        before = world.get("status")["label_seq"]
        world.send(events)
        status = world.get("status")
        assert (status["labels"], status["labels_waiting"]) == (1, 0)
        assert labelled(world, until=before)["__label"] == []
        assert labelled(world)["__prediction_id"] == ["p1/0"]

    def test_a_label_for_an_unknown_model_is_refused(self, world: World) -> None:
        response = world.client.post("/v1/models/nobody/labels", json={"labels": [{"prediction_id": "a", "value": 1}]})
        assert response.status_code == 404

    def test_a_label_without_a_value_is_named(self, world: World) -> None:
        response = world.label([{"prediction_id": "p0/0", "value": None}])
        assert response.status_code == 422
        assert response.json()["errors"][0]["path"] == "labels[0].value"

    def test_labels_that_wait_are_bounded(self, make_world: Callable[..., World]) -> None:
        world = make_world(max_waiting=1)
        assert world.label([{"prediction_id": "a", "value": 1}]).status_code == 200
        assert world.label([{"prediction_id": "b", "value": 1}]).status_code == 429

    def test_labelled_rows_are_a_snapshot_up_to_a_sequence_number(self, world: World) -> None:
        world.send(world.rows(5))
        first = world.label([{"prediction_id": "p3/0", "value": 1}]).json()["last_seq"]
        world.label([{"prediction_id": "p3/0", "value": 0, "revision": 1}, {"prediction_id": "p1/0", "value": 1}])
        then, now = labelled(world, until=first), labelled(world)
        assert (then["__prediction_id"], then["__label"]) == (["p3/0"], [1])
        assert (now["__prediction_id"], now["__label"]) == (["p1/0", "p3/0"], [1, 0])
        assert set(now) >= {"heat", "noise", "__event_time", "__prediction", "__version", "__label_seq"}


def labelled(world: World, **params: Any) -> dict[str, list[Any]]:
    """Return the labelled rows by column."""
    response = world.client.get(f"/v1/models/{MODEL}/labelled", params=params)
    assert response.status_code == 200
    columns: dict[str, list[Any]] = pq.read_table(BytesIO(response.content)).to_pydict()
    return columns


class TestWindows:
    def test_a_window_closes_after_its_rows_whatever_the_batches(self, world: World) -> None:
        world.send(world.rows(70))
        world.send(world.rows(250))
        windows = world.get("windows")["items"]
        assert [(w["index"], w["rows"], w["first_row"]) for w in windows] == [(2, 100, 200), (1, 100, 100), (0, 100, 0)]
        assert world.get("status")["open_window"]["rows"] == 20

    def test_stable_data_opens_no_episode(self, world: World) -> None:
        world.send(world.rows(500))
        assert world.get("episodes")["items"] == []
        assert {w["state"] for w in world.get("windows")["items"]} == {"scored"}

    def test_a_promotion_cuts_the_window_and_closes_the_episodes(self, world: World) -> None:
        world.send(world.rows(100, heat=3.0))
        world.send(world.rows(30, heat=3.0))
        world.send(world.rows(40, heat=3.0, revision=2, champion=V2, version=V2))
        [episode] = world.get("episodes")["items"]
        assert episode["closed_by"].startswith("promotion of sha256:2")
        cut = world.get("windows")["items"][0]
        assert (cut["closed_by"], cut["rows"], cut["state"]) == ("promotion", 30, "insufficient")
        status = world.get("status")
        assert (status["reference"], status["open_window"]["rows"], status["open_window"]["first_row"]) == (V2, 40, 130)

    def test_rows_of_an_older_revision_that_come_late_promote_nobody(self, world: World) -> None:
        world.send(world.rows(10, revision=5, champion=V2, version=V2))
        world.send(world.rows(10, revision=4, champion=V1))
        assert world.get("status")["reference"] == V2

    def test_windows_by_event_time_close_when_the_stream_has_passed(self, make_world: Callable[..., World]) -> None:
        world = make_world()
        world.registry.known = [Policy(MODEL, spec(monitor__window={"for": "1h"}), "sha256:" + "6" * 64)]
        world.refresh()
        world.send(world.rows(130))
        assert [(w["rows"], w["closed_by"]) for w in world.get("windows")["items"]] == [(60, "time"), (60, "time")]

    def test_a_killed_process_counts_nothing_twice(
        self, any_database: Database, make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_world(chunk_rows=40)

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        events = world.rows(120)
        with monkeypatch.context() as patch:
            patch.setattr(SqlWriter, "save_progress", die)
            with pytest.raises(KeyboardInterrupt):
                world.send(events)
        world.turn()
        assert [w["rows"] for w in world.get("windows")["items"]] == [100]
        assert world.get("status")["open_window"]["rows"] == 20

    def test_a_version_without_a_baseline_is_counted_and_never_scored(self, world: World) -> None:
        other = "sha256:" + "9" * 64
        world.send(world.rows(100, champion=other, version=other))
        assert world.get("windows")["items"][0]["state"] == "insufficient"


class TestDecisions:
    def test_drift_of_a_feature_that_matters_commands_training_once(self, world: World) -> None:
        world.send(world.rows(500, heat=3.0))
        [episode] = world.get("episodes")["items"]
        assert (episode["features"], episode["severity"], episode["windows"]) == (["heat"], "high", 5)
        assert episode["decision"]["decision"] == "command"
        assert episode["decision"]["run"] == f"run-{episode['decision']['id']}"
        assert [c.episode for c in world.training.commands] == [episode["id"]]
        assert (episode["window_first_row"], episode["opened_row"]) == (0, 99)

    def test_drift_of_a_feature_that_does_not_matter_is_low_and_commands_nothing(self, world: World) -> None:
        world.send(world.rows(100, noise=3.0))
        [episode] = world.get("episodes")["items"]
        assert (episode["severity"], episode["decision"]["decision"]) == ("low", "below_severity")
        assert world.training.commands == []

    def test_a_feature_that_newly_crosses_opens_another_episode_within_the_cooldown(self, world: World) -> None:
        world.send(world.rows(100, heat=3.0))
        world.send(world.rows(100, heat=3.0, noise=3.0))
        episodes = world.get("episodes")["items"]
        assert [e["features"] for e in episodes] == [["noise"], ["heat"]]
        assert len(world.training.commands) == 1

    def test_the_cooldown_holds_the_command_and_not_the_episode(self, world: World) -> None:
        world.send(world.rows(100, heat=3.0))
        world.send(world.rows(100, heat=-3.0, revision=2, champion=V2, version=V2))
        newest = world.get("episodes")["items"][0]
        assert newest["decision"]["decision"] == "cooldown"
        assert "again from" in newest["decision"]["reason"]
        world.sent += 24 * 60
        world.send(world.rows(100, heat=-3.0, revision=2, champion=V2, version=V2))
        assert world.get("episodes")["items"][0]["decision"]["decision"] == "command"
        assert len(world.training.commands) == 2

    def test_broken_data_never_trains(self, world: World) -> None:
        events = world.rows(100, heat=3.0)
        for event in events[::2]:
            event["features"]["noise"] = None
        world.send(events)
        assert world.get("windows")["items"][0]["quality"][0].startswith("noise: 50.0% of its values are missing")
        assert world.get("episodes")["items"][0]["decision"]["decision"] == "quality"
        assert world.training.commands == []

    def test_a_redacted_feature_is_no_fault_and_the_others_are_watched_on(self, world: World) -> None:
        events = world.rows(100, heat=3.0)
        for event in events:
            del event["features"]["noise"]
        world.send(events)
        window = world.get("windows")["items"][0]
        assert window["quality"] == []
        assert "noise" not in [feature["feature"] for feature in window["features"]]
        assert "noise" not in world.get(f"reports/{window['id']}")["distributions"]
        assert [e["features"] for e in world.get("episodes")["items"]] == [["heat"]]

    def test_switched_off_it_decides_and_sends_nothing(self, make_world: Callable[..., World]) -> None:
        world = make_world(commands="off")
        world.send(world.rows(100, heat=3.0))
        assert world.get("decisions")["items"][0]["decision"] == "off"
        assert world.training.commands == []

    def test_while_training_is_away_the_command_waits(self, world: World) -> None:
        world.training.failure = Unavailable("training cannot be reached")
        world.send(world.rows(100, heat=3.0))
        assert world.get("status")["pending_commands"] == 1
        world.training.failure = None
        world.turn()
        assert world.get("status")["pending_commands"] == 0
        assert world.get("decisions")["items"][0]["command"] == "delivered"

    def test_a_command_whose_answer_got_lost_is_repeated_and_no_other(self, world: World) -> None:
        world.training.answers_get_lost = True
        world.send(world.rows(200, heat=3.0))
        assert world.get("status")["pending_commands"] == 1
        world.training.answers_get_lost = False
        world.turn()
        [decision] = world.get("decisions")["items"]
        assert (decision["command"], decision["run"]) == ("delivered", f"run-{decision['id']}")
        assert [command.id for command in world.training.commands] == [decision["id"]]

    def test_what_training_refuses_is_recorded_and_not_repeated(self, world: World) -> None:
        world.training.failure = Conflict("model is paused")
        world.send(world.rows(100, heat=3.0))
        world.training.failure = None
        world.turn()
        [decision] = world.get("decisions")["items"]
        assert decision["command"] == "refused"
        assert "training refused: model is paused" in decision["reason"]
        assert world.training.commands == []

    def test_the_command_names_the_labels_that_were_there(self, world: World) -> None:
        events = world.rows(100, heat=3.0)
        world.send(events[:50])
        seq = world.label([{"prediction_id": "p3/0", "value": 1}]).json()["last_seq"]
        world.send(events[50:])
        assert world.training.commands[0].label_seq == seq

    def test_poor_performance_is_critical_and_commands(self, make_world: Callable[..., World]) -> None:
        world = make_world()
        poor = [{"performance": {"metric": "accuracy", "below": 0.6}}]
        world.registry.known = [Policy(MODEL, spec(train__when=poor), "sha256:" + "7" * 64)]
        world.refresh()
        events = world.rows(100)
        world.send(events)
        assert world.get("episodes")["items"] == []
        world.label([{"prediction_id": e["id"], "value": 1 - e["prediction"]} for e in events])
        [episode] = world.get("episodes")["items"]
        assert (episode["features"], episode["severity"]) == (["performance:accuracy"], "critical")
        assert world.get("windows")["items"][0]["severity"] == "critical"
        assert [c.trigger for c in world.training.commands] == ["performance"]

    def test_an_episode_subsides_after_calm_windows_and_its_return_is_news(self, world: World) -> None:
        world.send(world.rows(100, heat=3.0))
        world.send(world.rows(100))
        assert world.get("episodes")["items"][0]["closed_at"] is None
        world.send(world.rows(100))
        [over] = world.get("episodes")["items"]
        assert (over["closed_by"], over["windows"]) == ("subsided: calm for 2 windows", 1)
        world.sent += 24 * 60
        world.send(world.rows(100, heat=3.0))
        again, _ = world.get("episodes")["items"]
        assert (again["features"], again["closed_at"]) == (["heat"], None)
        assert [command.episode for command in world.training.commands] == [over["id"], again["id"]]

    def test_a_window_too_small_to_judge_does_not_calm_an_episode(self, world: World) -> None:
        [policy] = world.registry.known
        few = spec(monitor__window={"for": "1h"})
        world.registry.known = [replace(policy, spec=few, spec_digest="sha256:" + "6" * 64)]
        world.refresh()
        world.send(world.rows(60, heat=3.0))
        for _ in range(2):
            world.send(world.rows(30))
            world.sent += 30
        world.send(world.rows(1))
        states = [window["state"] for window in world.get("windows")["items"]]
        assert states == ["insufficient", "insufficient", "scored"]
        assert world.get("episodes")["items"][0]["closed_at"] is None

    def test_a_model_that_stays_below_its_floor_is_trained_again_with_each_window(
        self, make_world: Callable[..., World]
    ) -> None:
        world = make_world()
        self.watch_accuracy(world)
        for _ in range(2):
            self.answer(world, right=False)
            world.sent += 24 * 60
        [episode] = world.get("episodes")["items"]
        assert (episode["features"], episode["windows"]) == (["performance:accuracy"], 2)
        assert [command.episode for command in world.training.commands] == [episode["id"]] * 2

    def test_windows_below_the_floor_that_are_judged_by_the_same_labels_command_once(
        self, make_world: Callable[..., World]
    ) -> None:
        """What came while processing was held up is judged at once: the first command has all its labels already."""
        world = make_world()
        self.watch_accuracy(world)
        for _ in range(2):
            events = world.rows(100)
            wrong = [{"prediction_id": event["id"], "value": 1 - event["prediction"]} for event in events]
            for path, body in (
                ("/v1/events", {"source": "test", "events": events}),
                (f"/v1/models/{MODEL}/labels", {"labels": wrong}),
            ):
                assert world.client.post(path, json=body).is_success
            world.sent += 24 * 60
        world.turn()
        [episode] = world.get("episodes")["items"]
        assert episode["windows"] == 2
        assert [command.episode for command in world.training.commands] == [episode["id"]]
        self.answer(world, right=False)
        first, second = world.training.commands
        assert first.label_seq < second.label_seq

    def test_poor_performance_subsides_when_labels_say_so(self, make_world: Callable[..., World]) -> None:
        world = make_world()
        self.watch_accuracy(world)
        self.answer(world, right=False)
        self.answer(world, right=True)
        world.send(world.rows(100))
        assert world.get("episodes")["items"][0]["closed_at"] is None
        unlabelled = world.sent - 100
        rows = [{"prediction_id": f"p{place}/0", "value": 1} for place in range(unlabelled, world.sent)]
        answers = {entry["id"]: entry["prediction"] for entry in world.last}
        world.label([row | {"value": answers[row["prediction_id"]]} for row in rows])
        assert world.get("episodes")["items"][0]["closed_by"] == "subsided: calm for 2 windows"

    @staticmethod
    def watch_accuracy(world: World) -> None:
        when = [{"performance": {"metric": "accuracy", "below": 0.6}}]
        world.registry.known = [Policy(MODEL, spec(train__when=when), "sha256:" + "7" * 64)]
        world.refresh()

    @staticmethod
    def answer(world: World, *, right: bool) -> None:
        """A window whose labels all come."""
        events = world.rows(100)
        world.send(events)
        world.label(
            [
                {"prediction_id": event["id"], "value": event["prediction"] if right else 1 - event["prediction"]}
                for event in events
            ]
        )


class TestPerformance:
    def test_a_few_labels_reach_their_window_when_no_more_can_be_expected(self, world: World) -> None:
        events = world.rows(100)
        world.send(events)
        world.label([{"prediction_id": e["id"], "value": e["prediction"]} for e in events[:5]])
        world.fold_overdue()
        assert world.get("windows")["items"][0]["performance"] == []
        world.sent += 24 * 60
        world.send(world.rows(1))
        world.fold_overdue()
        assert world.get("windows")["items"][0]["performance"][0]["rows"] == 5

    def test_status_says_how_far_labels_have_been_folded(self, world: World) -> None:
        world.send(world.rows(10))
        last = world.label([{"prediction_id": "p3/0", "value": 1}]).json()["last_seq"]
        status = world.get("status")
        assert (status["label_seq"], status["folded_label_seq"]) == (last, last)

    def test_late_labels_reach_the_window_of_their_rows(self, world: World) -> None:
        events = world.rows(100)
        world.send(events)
        assert world.get("windows")["items"][0]["performance"] == []
        world.label([{"prediction_id": e["id"], "value": e["prediction"]} for e in events])
        [entry] = world.get("windows")["items"][0]["performance"]
        assert (entry["value"], entry["rows"], entry["version"]) == (1.0, 100, V1)
        assert entry["low"] < 1.0 <= entry["high"]

    def test_rows_without_a_label_after_the_delay_are_missing(self, world: World) -> None:
        world.send(world.rows(100))
        assert world.get("status")["labels_missing"] == 40


class TestComparison:
    def test_shadow_copies_are_paired_and_candidates_counted(self, world: World) -> None:
        events = world.rows(60)
        copies = [e | {"role": "shadow", "version": V2, "prediction": 1 - e["prediction"]} for e in events[:30]]
        world.send(events + copies)
        comparison = world.get("comparison", revision=1)
        assert (comparison["champion"]["responses"], comparison["candidate"]["responses"]) == (60, 30)
        assert (comparison["pairs"], comparison["disagreement"], comparison["shadow"]) == (30, 1.0, True)

    def test_errors_and_labels_are_counted_by_side(self, world: World) -> None:
        champion = world.rows(20)
        candidate = world.rows(10, role="candidate", version=V2)
        failed = world.rows(2, role="candidate", version=V2, error="late", prediction=None, features={})
        world.send(champion + candidate + failed)
        world.label([{"prediction_id": e["id"], "value": e["prediction"]} for e in candidate])
        comparison = world.get("comparison", revision=1)
        side = comparison["candidate"]
        assert (side["responses"], side["errors"], side["performance"]["value"]) == (10, 2, 1.0)
        assert comparison["champion"]["performance"] is None

    def test_a_model_that_never_answered_has_no_comparison(self, world: World) -> None:
        assert world.client.get("/v1/models/nobody/comparison", params={"revision": 1}).status_code == 404


class TestReports:
    def test_a_report_is_json_and_a_page_that_needs_nothing_else(self, world: World) -> None:
        events = world.rows(200, heat=3.0)
        world.send(events)
        world.label([{"prediction_id": e["id"], "value": e["prediction"]} for e in events])
        report = world.get("reports/w1")
        assert report["distributions"]["heat"]["bars"]
        assert sum(report["distributions"]["heat"]["window"]) == pytest.approx(1.0)
        page = world.client.get(f"/v1/models/{MODEL}/reports/w1", params={"format": "html"})
        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text
        assert page.text.count("<svg") >= 5  # three distributions, the heat map, the trend

    @pytest.mark.parametrize(("window", "status"), [("w77", 404), ("last", 422)])
    def test_a_window_that_is_not_there_is_an_error(self, world: World, window: str, status: int) -> None:
        world.send(world.rows(1))
        assert world.client.get(f"/v1/models/{MODEL}/reports/{window}").status_code == status


def test_prediction_ids_are_paged_in_the_order_of_ingest(world: World) -> None:
    world.send(world.rows(7))
    first = world.get("predictions", limit=5)
    second = world.get("predictions", limit=5, cursor=first["next_cursor"])
    assert first["items"] + second["items"] == [f"p{i}/0" for i in range(7)]


def test_old_rows_are_forgotten_and_the_open_window_is_kept(make_world: Callable[..., World]) -> None:
    world = make_world(keep_rows=1000)
    world.send(world.rows(250))
    world.label([{"prediction_id": f"p{i}/0", "value": 1} for i in range(250)])
    Retain(world.services.browse.transactions, keep_rows=20)()
    assert world.get("predictions")["items"][0] == "p200/0"
    assert len(labelled(world)["__label"]) == 50
    assert len(world.get("windows")["items"]) == 2


def test_a_policy_that_changes_is_followed(world: World) -> None:
    registry: FakeRegistry = world.registry
    [policy] = registry.known
    registry.known = [replace(policy, spec=spec(monitor__window={"rows": 50}), spec_digest="sha256:" + "8" * 64)]
    assert world.refresh()
    assert not world.refresh()
    world.send(world.rows(100))
    assert [w["rows"] for w in world.get("windows")["items"]] == [50, 50]
