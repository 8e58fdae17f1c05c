"""Kills services of a live platform while a stream is replayed, and what must hold of it afterwards."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from modelyard_cli.demo.holding import Holder
from modelyard_cli.demo.replayer import Answer, Replayer
from modelyard_cli.demo.stream import Stream
from modelyard_cli.embedded.layout import Layout
from modelyard_cli.embedded.platform import Platform
from modelyard_cli.manifests import with_uploaded_data
from modelyard_cli.session import Session
from modelyard_client import Modelyard
from modelyard_common.errors import ModelyardError
from modelyard_common.testing import free_port_base
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunView

READY_S = 60.0


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


class Killer:
    """Kills one service after another, each at its stage and when all others are up."""

    def __init__(self, platform: Platform, client: Modelyard, model: str, kills: Sequence[Kill]) -> None:
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

    kills: Sequence[Kill]
    stream: Stream
    answers: list[Answer]
    labels_sent: int
    client: Modelyard

    @property
    def model(self) -> str:
        return self.stream.name


@contextmanager
def lived_through(home: Path, stream: Stream, plan: Callable[[list[Answer]], list[Kill]]) -> Iterator[Outcome]:
    """Replay a stream on a platform of its own while services are killed.

    Args:
        plan: the answers so far, a list that grows, to the kills.
    """
    layout = Layout(home, free_port_base())
    platform = Platform(layout, lambda line: None)
    platform.start()
    try:
        platform.wait_ready()
        client = Session(layout, {}, None).connect()
        manifest, _ = with_uploaded_data(stream.manifest_of_history(), stream.data, client.training)
        client.registry.apply(manifest)
        wait_until_served(platform, client, stream.name)
        answers: list[Answer] = []
        kills = plan(answers)
        killer = Killer(platform, client, stream.name, kills)
        holder = Holder(client, stream.name, killer)
        url = platform.layout.url("inference")
        replayer = Replayer(stream, [url], client.drift, holder, killer, lambda _: killer(), answers)
        replayer.run()
        killer.settle()
        holder(replayer.answered)
        yield Outcome(kills, stream, replayer.answers, replayer.labels_sent, client)
        client.close()
    finally:
        platform.stop()


def wait_until_served(platform: Platform, client: Modelyard, model: str) -> None:
    deadline = time.monotonic() + 120
    while not client.inference.ready(model):
        platform.watch()
        assert time.monotonic() < deadline, client.training.runs(model)
        time.sleep(0.1)


class Invariants:
    """What must hold whatever was killed. A test class inherits it and brings the fixture ``outcome``."""

    def test_each_service_was_killed_at_its_stage_and_started_again(self, outcome: Outcome) -> None:
        for kill in outcome.kills:
            assert kill.at_s, f"{kill.service} was never killed while {kill.stage}"
            before, after = kill.pids
            assert before != after, f"{kill.service} was not started again"

    def test_requests_fail_only_while_inference_is_down(self, outcome: Outcome) -> None:
        outages = [kill for kill in outcome.kills if kill.service == "inference"]
        outside = [
            (answer.failure, [answer.asked_s - kill.at_s for kill in outages])
            for answer in outcome.answers
            if answer.failure and not any(kill.at_s - 1 <= answer.asked_s <= kill.ready_s for kill in outages)
        ]

        assert outages
        assert outside == []

    def test_every_prediction_that_the_client_received_is_in_the_log_once(self, outcome: Outcome) -> None:
        received = [f"{answer.prediction_id}/0" for answer in outcome.answers if not answer.failure]
        logged = outcome.client.drift.prediction_ids(outcome.model)
        failed = len(outcome.answers) - len(received)

        assert len(received) > len(outcome.stream) * 0.8
        assert set(received) - set(logged) == set()
        assert max(Counter(logged).values()) == 1
        assert len(logged) - len(received) <= failed, "rows were logged that nobody asked for"

    def test_every_acknowledged_label_is_there_once(self, outcome: Outcome) -> None:
        status = outcome.client.drift.status(outcome.model)

        assert outcome.labels_sent > 0
        assert (status.labels, status.labels_waiting) == (outcome.labels_sent, 0)

    def test_windows_count_each_row_once(self, outcome: Outcome) -> None:
        status = outcome.client.drift.status(outcome.model)
        windows = outcome.client.drift.windows(outcome.model)
        open_rows = status.open_window.rows if status.open_window else 0

        assert sum(window.rows for window in windows) + open_rows == status.requests
        ends = sorted((window.first_row, window.first_row + window.rows) for window in windows)
        assert all(left[1] == right[0] for left, right in itertools.pairwise(ends))

    def test_no_run_starts_twice(self, outcome: Outcome) -> None:
        runs = outcome.client.training.runs(outcome.model)

        assert [(run.id, run.state) for run in runs if run.state not in TERMINAL_STATES] == []
        assert [(run.id, run.attempts) for run in runs if run.attempts != 1] == []

    def test_each_command_of_drift_is_one_run(self, outcome: Outcome) -> None:
        decisions = outcome.client.drift.decisions(outcome.model)
        runs = [run for run in outcome.client.training.runs(outcome.model) if run.trigger.episode]
        asked = Counter((one.run, one.trigger, one.episode) for one in decisions if one.decision == "command")
        begun = Counter((run.id, run.trigger.kind, run.trigger.episode) for run in runs)

        assert begun, "drift commanded nothing"
        assert begun == asked, f"runs without a command: {begun - asked}; commands without a run: {asked - begun}"

    def test_an_episode_trains_again_only_below_the_floor_and_with_newer_labels(self, outcome: Outcome) -> None:
        """A change is learned from once, a model below its floor is tried again (ADR 7)."""
        episodes: defaultdict[str, list[RunView]] = defaultdict(list)
        for run in outcome.client.training.runs(outcome.model):
            if run.trigger.episode:
                episodes[run.trigger.episode].append(run)

        for episode, runs in episodes.items():
            found = [(run.id, run.trigger.kind, run.until_label_seq) for run in runs]
            assert len(runs) == 1 or {kind for _, kind, _ in found} == {"performance"}, (episode, found)
            assert len({until for _, _, until in found}) == len(runs), (episode, found)

    def test_the_ledger_tells_each_event_once_and_its_chain_holds(self, outcome: Outcome) -> None:
        page = outcome.client.registry.ledger(outcome.model)
        entries = [*page.items]
        while page.next_cursor is not None:
            page = outcome.client.registry.ledger(outcome.model, cursor=page.next_cursor)
            entries += page.items
        told = Counter(entry.subject for entry in entries if entry.kind == "version.registered")

        assert page.intact
        assert told == {version.digest: 1 for version in outcome.client.registry.versions(outcome.model)}
        assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
