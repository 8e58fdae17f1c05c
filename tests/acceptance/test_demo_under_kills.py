"""The electricity stream, far beyond its break, while a service is killed every thousand rows or so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from modelyard_cli.demo.replayer import Answer
from modelyard_cli.demo.stream import find_example, load_stream

from tests.acceptance.kill_stage import Invariants, Kill, Outcome, lived_through

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROWS = 16_000
"""Eleven kills, on both sides of the break; each service is killed twice at least."""
EVERY_ROWS = 1_300
SERVICES = ("drift", "inference", "training", "registry", "mlflow")


def every_so_often(rows: int) -> Callable[[list[Answer]], list[Kill]]:
    def plan(answers: list[Answer]) -> list[Kill]:
        def after(count: int) -> Callable[..., bool]:
            return lambda *_: len(answers) >= count

        return [
            Kill(SERVICES[place % len(SERVICES)], f"after {count} rows", after(count), mid_request=True)
            for place, count in enumerate(range(EVERY_ROWS, rows, EVERY_ROWS))
        ]

    return plan


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """That much of the stream, lived through."""
    stream = load_stream(find_example("electricity"), None, ROWS)
    with lived_through(tmp_path_factory.mktemp("kills"), stream, every_so_often(len(stream) - 500)) as outcome:
        yield outcome


class TestDemoUnderKills(Invariants):
    def test_versions_came_and_went(self, outcome: Outcome) -> None:
        runs = outcome.client.training.runs(outcome.model)

        assert {run.state for run in runs} == {"succeeded"}, [(run.id, run.reason) for run in runs]
        assert len({answer.version for answer in outcome.answers if not answer.failure}) > 1
