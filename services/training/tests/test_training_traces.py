"""The trace of whoever asked for a run: kept with it, handed to its job by every launcher, gone on with by its log."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launcher_kits import LocalKit
from modelyard_common.errors import Unavailable
from modelyard_common.identity import Identity
from modelyard_common.logs import configure_logging
from modelyard_common.testing.spans import Recorded, recording_spans
from modelyard_common.tracing import span
from modelyard_training.adapters.launchers.job_manifest import JobTemplate, job_manifest
from modelyard_training.adapters.launchers.local import LocalLauncher
from modelyard_training.domain.ports import Job
from modelyard_training.domain.runs import Trigger
from modelyard_training.domain.supervision import Presence
from modelyard_training.usecases.submit import Submission
from opentelemetry.trace import SpanKind

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def spans() -> Iterator[Recorded]:
    with recording_spans() as recorded:
        yield recorded


def submitted(yard: Any) -> str:
    yard.models.put("m")
    run: str = yard.submit(Submission("m", Trigger("drift", episode="e-1"))).run.id
    return run


def test_a_job_goes_on_with_the_trace_that_asked_for_it_also_after_a_restart(yard: Any, spans: Recorded) -> None:
    with span("ask", parent=PARENT):
        run = submitted(yard)

    yard.restarted().tick()

    asked, launched = spans.one("submit run"), spans.one("launch run")
    assert asked.kind is SpanKind.PRODUCER
    assert dict(asked.attributes or {}) == {"modelyard.model": "m", "modelyard.trigger": "drift", "modelyard.run": run}
    kept = f"00-{'a' * 32}-{asked.context.span_id:016x}-01"
    assert yard.run(run).traceparent == kept == yard.launcher.jobs[run, 1].document["traceparent"]
    assert launched.parent is not None and launched.parent.span_id == asked.context.span_id


def test_asked_again_for_an_episode_the_run_keeps_its_trace(yard: Any, spans: Recorded) -> None:
    first = submitted(yard)
    before = yard.run(first).traceparent

    assert submitted(yard) == first
    assert yard.run(first).traceparent == before
    assert spans.names == ["submit run"]


def test_a_launcher_that_is_away_does_not_fill_the_trace(yard: Any, spans: Recorded) -> None:
    submitted(yard)
    yard.launcher.refuse = Unavailable("the cluster is away")
    for _ in range(5):
        yard.tick()
    yard.launcher.refuse = None
    yard.tick()

    assert spans.names.count("launch run") == 1


def test_lines_about_a_run_carry_its_trace_without_any_receiver(yard: Any) -> None:
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    configure_logging(Identity("training"), stream=stream)
    try:
        run = submitted(yard)
        yard.tick()
    finally:
        root.handlers[:], _ = before
        root.setLevel(before[1])

    [line] = [json.loads(text) for text in stream.getvalue().splitlines() if "run.launched" in text]
    assert line["trace.id"] == yard.run(run).traceparent.split("-")[1]


def test_both_launchers_hand_it_over(tmp_path: Path, end_jobs: Callable[[Path], None]) -> None:
    job = Job("run-1", 1, {"run": "run-1", "traceparent": PARENT, "spec": {}})
    kit = LocalKit(tmp_path, end_jobs)
    command = [sys.executable, "-S", str(Path(__file__).with_name("fake_job.py"))]
    launcher = LocalLauncher(tmp_path, command=command, environment={})
    launcher.launch(job)
    kit.settle(launcher, "run-1", Presence.ENDED)
    kit.close()

    annotations = job_manifest(job, JobTemplate(image="x"))["spec"]["template"]["metadata"]["annotations"]
    [in_pod] = [json.loads(text) for text in annotations.values()]
    in_file = json.loads((tmp_path / "run-1/attempt-1/job.json").read_text())
    assert in_pod["traceparent"] == in_file["traceparent"] == PARENT
