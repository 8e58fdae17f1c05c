"""kill -9 of each service at a named stage, on a recorded slice around the break: the loop completes all the same.

One platform for all of them. What was acknowledged is there once; requests fail only while inference itself is down.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from modelyard_cli.demo.holding import Holder
from modelyard_cli.demo.replayer import Answer, Replayer
from modelyard_cli.demo.stream import Stream, find_example, load_stream
from modelyard_cli.embedded.layout import Layout
from modelyard_cli.embedded.platform import Platform
from modelyard_cli.manifests import with_uploaded_data
from modelyard_cli.session import Session
from modelyard_client import Modelyard
from modelyard_common.errors import ModelyardError
from modelyard_common.testing.server import free_port_base
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunView

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]
SLICE = slice(12_424, 18_424)
HISTORY_ROWS = 4_000
READY_S = 60.0
POLICY: dict[str, Any] = {
    "train": {
        "recipe": {"estimator": "hist_gradient_boosting", "params": {"max_iter": 20}},
        "learnFrom": {"history": True, "feedback": True, "recent": {"rows": 1500}},
        "split": {"by": "time", "test": 0.2},
        "seed": 7,
        "timeout": "5m",
        "when": [{"drift": {"atLeast": "high", "cooldown": "1d", "maxPerWeek": 7}}],
    },
    # Not choosy: what is asked here is whether versions get through, not whether they are good.
    "gate": [{"metric": "accuracy", "min": 0.3, "on": {"fresh": {"rows": 250, "minRows": 100}}}],
    "rollout": {
        "promote": "automatic",
        "steps": [{"shadow": True, "minRequests": 50}, {"weight": 50, "minRequests": 30}],
        "abortIf": [{"signal": "errorRatio", "above": 0.5}],
        "contenders": 8,
    },
}


@dataclass
class Kill:
    """One service, killed once at its stage.

    Attributes:
        is_time: whether the stage is reached.
        mid_request: strike a moment later, when the next rows are under way.
    """

    service: str
    stage: str
    is_time: Callable[[Modelyard, str], bool]
    mid_request: bool = False
    at_s: float = 0.0
    ready_s: float = 0.0
    """Monotonic seconds when it answered again."""
    pids: list[int] = field(default_factory=list)


def newest_retraining(client: Modelyard, model: str) -> RunView | None:
    return next((run for run in client.training.runs(model) if run.trigger.kind == "drift"), None)


def is_training(client: Modelyard, model: str) -> bool:
    run = newest_retraining(client, model)
    return run is not None and run.state == "running"


def is_judging(client: Modelyard, model: str) -> bool:
    run = newest_retraining(client, model)
    return run is not None and run.state == "running" and run.stage in ("evaluate", "track", "register")


def is_rolling_out(client: Modelyard, model: str) -> bool:
    rollout = client.registry.model(model).rollout
    return rollout is not None and rollout.state == "running" and rollout.kind != "first"


def is_serving_a_second_version(client: Modelyard, model: str) -> bool:
    champion = client.registry.model(model).champion
    return champion is not None and champion.number > 1


class Killer:
    """Kills one service after another, each at its stage and when all others are up."""

    def __init__(self, platform: Platform, client: Modelyard, model: str, kills: list[Kill]) -> None:
        self.platform, self.client, self.model = platform, client, model
        self.kills = kills
        self._waiting = list(kills)
        self._down: Kill | None = None

    def __call__(self) -> None:
        """Look after the platform, and kill what is due."""
        self.platform.watch()
        if self._down is not None:
            if self._down.at_s and self.platform.processes[self._down.service].is_ready():
                self._down.ready_s = time.monotonic()
                self._down = None
            return
        for kill in self._waiting:
            try:
                due = kill.is_time(self.client, self.model)
            except ModelyardError:
                continue
            if due:
                self._kill(kill)
                return

    def _kill(self, kill: Kill) -> None:
        pid = self.platform.processes[kill.service].pid
        assert pid is not None
        self._waiting.remove(kill)
        self._down = kill
        kill.pids.append(pid)

        def strike() -> None:
            kill.at_s = time.monotonic()
            psutil.Process(pid).kill()

        if kill.mid_request:
            threading.Timer(0.03, strike).start()
        else:
            strike()

    def settle(self) -> None:
        """Wait until everything is up again."""
        deadline = time.monotonic() + READY_S
        while self._down is not None:
            assert time.monotonic() < deadline, f"{self._down.service} did not come back"
            self()
            time.sleep(0.05)
        for kill in self.kills:
            pid = self.platform.processes[kill.service].pid
            assert pid is not None
            kill.pids.append(pid)


@dataclass(frozen=True)
class Outcome:
    """What was seen from outside, and what the platform says at the end."""

    kills: list[Kill]
    stream: Stream
    answers: list[Answer]
    labels_sent: int
    client: Modelyard

    @property
    def model(self) -> str:
        return self.stream.name


def example_around_the_break(folder: Path) -> Path:
    """Write the electricity example again: a slice of its rows, a small model, a policy in a hurry."""
    original = find_example("electricity")
    whole = load_stream(original, None, None)  # fetches the data when it is not there
    rows = pa.concat_tables([pq.read_table(whole.data / name) for name in ("history.parquet", "stream.parquet")])
    rows = rows.slice(SLICE.start, SLICE.stop - SLICE.start)
    (folder / "data").mkdir(parents=True)
    pq.write_table(rows.slice(0, HISTORY_ROWS), folder / "data/history.parquet")
    pq.write_table(rows.slice(HISTORY_ROWS), folder / "data/stream.parquet")
    manifest = yaml.safe_load((original / "model.yaml").read_text())
    manifest["spec"] |= POLICY
    manifest["spec"]["monitor"]["window"] = {"rows": 250}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Live through the slice while one service after another is killed."""
    folder = tmp_path_factory.mktemp("kills")
    example = example_around_the_break(folder / "electricity")
    stream = load_stream(example, example / "data", None)
    layout = Layout(folder / "home", free_port_base())
    platform = Platform(layout, lambda line: None)
    platform.start()
    try:
        platform.wait_ready()
        client = Session(layout, {}, None).connect()
        manifest, _ = with_uploaded_data(stream.manifest_of_history(), stream.data, client.training)
        client.registry.apply(manifest)
        yield live_through(platform, client, stream)
        client.close()
    finally:
        platform.stop()


def live_through(platform: Platform, client: Modelyard, stream: Stream) -> Outcome:
    wait_until_served(platform, client, stream.name)
    answers: list[Answer] = []

    def after(rows: int) -> Callable[[Modelyard, str], bool]:
        return lambda *_: len(answers) >= rows

    kills = [
        Kill("drift", "ingesting", after(200)),
        Kill("training", "training", is_training),
        Kill("registry", "judging", is_judging),
        Kill("registry", "rolling out", is_rolling_out),
        Kill("inference", "serving", is_serving_a_second_version, mid_request=True),
        Kill("mlflow", "training", is_training),
    ]
    killer = Killer(platform, client, stream.name, kills)
    holder = Holder(client, stream.name, killer)

    def seen(done: int) -> None:
        del done
        killer()

    replayer = Replayer(stream, platform.layout.url("inference"), client.drift, holder, seen)
    replayer.answers = answers
    replayer.run()
    killer.settle()
    holder(replayer.answered)
    return Outcome(kills, stream, replayer.answers, replayer.labels_sent, client)


def wait_until_served(platform: Platform, client: Modelyard, model: str) -> None:
    deadline = time.monotonic() + 120
    while not client.inference.ready(model):
        platform.watch()
        assert time.monotonic() < deadline, client.training.runs(model)
        time.sleep(0.1)


def test_each_service_was_killed_at_its_stage_and_started_again(outcome: Outcome) -> None:
    for kill in outcome.kills:
        assert kill.at_s, f"{kill.service} was never killed while {kill.stage}"
        before, after = kill.pids
        assert before != after, f"{kill.service} was not started again"


def test_the_loop_completes(outcome: Outcome) -> None:
    rollouts = outcome.client.registry.rollouts(outcome.model)
    runs = outcome.client.training.runs(outcome.model)

    assert {run.state for run in runs} == {"succeeded"}, [(run.id, run.state, run.reason) for run in runs]
    assert any(rollout.kind == "new" and rollout.state == "completed" for rollout in rollouts)
    assert {"vic_price", "vic_demand", "transfer"} <= {
        feature for episode in outcome.client.drift.episodes(outcome.model) for feature in episode.features
    }


def test_requests_fail_only_while_inference_is_down(outcome: Outcome) -> None:
    [down] = [kill for kill in outcome.kills if kill.service == "inference"]
    failed = [answer for answer in outcome.answers if answer.failure]

    outside = [
        (answer.asked_s - down.at_s, answer.failure)
        for answer in failed
        if not down.at_s - answer.took_ms / 1000 - 1 <= answer.asked_s <= down.ready_s
    ]
    assert outside == []


def test_every_prediction_that_the_client_received_is_in_the_log_once(outcome: Outcome) -> None:
    received = [f"{answer.prediction_id}/0" for answer in outcome.answers if not answer.failure]
    logged = outcome.client.drift.prediction_ids(outcome.model)
    failed = len(outcome.answers) - len(received)

    assert len(received) > len(outcome.stream) * 0.8
    assert set(received) - set(logged) == set()
    assert max(Counter(logged).values()) == 1
    assert len(logged) - len(received) <= failed, "rows were logged that nobody asked for"


def test_every_acknowledged_label_is_there_once(outcome: Outcome) -> None:
    status = outcome.client.drift.status(outcome.model)

    assert outcome.labels_sent > 0
    assert (status.labels, status.labels_waiting) == (outcome.labels_sent, 0)


def test_windows_count_each_row_once(outcome: Outcome) -> None:
    status = outcome.client.drift.status(outcome.model)
    windows = outcome.client.drift.windows(outcome.model)
    open_rows = status.open_window.rows if status.open_window else 0

    assert sum(window.rows for window in windows) + open_rows == status.requests
    ends = sorted((window.first_row, window.first_row + window.rows) for window in windows)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(ends))


def test_no_run_starts_twice(outcome: Outcome) -> None:
    runs = outcome.client.training.runs(outcome.model)
    episodes = Counter(run.trigger.episode for run in runs if run.trigger.episode)

    assert all(run.state in TERMINAL_STATES for run in runs)
    assert [run.attempts for run in runs] == [1] * len(runs)
    assert set(episodes.values()) == {1}


def test_the_ledger_tells_each_event_once_and_its_chain_holds(outcome: Outcome) -> None:
    page = outcome.client.registry.ledger(outcome.model)
    entries = [*page.items]
    while page.next_cursor is not None:
        page = outcome.client.registry.ledger(outcome.model, cursor=page.next_cursor)
        entries += page.items
    told = Counter(entry.subject for entry in entries if entry.kind == "version.registered")

    assert page.intact
    assert told == {version.digest: 1 for version in outcome.client.registry.versions(outcome.model)}
    assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
