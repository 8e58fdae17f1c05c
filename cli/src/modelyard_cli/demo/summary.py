"""The result of a demo: what was asked and answered, what the loop did about it, and whether it was worth it."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_client import Modelyard
from modelyard_contracts.registry_v1 import RolloutView

from modelyard_cli.demo.replayer import Answer
from modelyard_cli.demo.story import Story
from modelyard_cli.demo.stream import Stream

__all__ = ["frozen_answers", "summarise", "write_record"]


def frozen_answers(platform: Modelyard, stream: Stream, story: Story) -> list[Any]:
    """Return what the first version, left alone, would have answered: its bundle, run here on all rows."""
    # With the embedded platform alone: whoever talks to another one has no runtimes.
    from modelyard_bundle.loading import load  # noqa: PLC0415
    from modelyard_bundle.manifest import verify  # noqa: PLC0415
    from modelyard_bundle.signature import columns_from_rows  # noqa: PLC0415

    first = min(story.versions, key=lambda version: version.number)
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        path = platform.registry.download_bundle(stream.name, first.digest, Path(folder) / "bundle")
        manifest = verify(path, first.digest)
        runtime = load(path, manifest)
        columns = columns_from_rows(manifest.signature, list(stream.features))
        labels: list[Any] = runtime.predict(columns).labels.tolist()
        return labels


def summarise(
    stream: Stream,
    story: Story,
    answers: Sequence[Answer],
    *,
    frozen: Sequence[Any],
    held_s: float,
    first_prediction_s: float | None,
) -> dict[str, Any]:
    """Return the last line of the demo."""
    truths = stream.truths[: len(answers)]
    took = [answer.took_ms for answer in answers if not answer.failure]
    p50, p99 = np.quantile(took, [0.5, 0.99]) if took else (None, None)
    numbers = {version.digest: version.number for version in story.versions}
    return {
        "requests": len(answers),
        "failed_requests": sum(1 for answer in answers if answer.failure),
        "held_s": round(held_s, 1),
        "first_prediction_s": None if first_prediction_s is None else round(first_prediction_s, 1),
        "episodes": [
            {
                "row": stream.history_rows + episode.opened_row,
                "features": list(episode.features),
                "severity": episode.severity,
                "decision": episode.decision.decision if episode.decision else None,
                "reason": episode.decision.reason if episode.decision else "",
            }
            for episode in reversed(story.episodes)
        ],
        "runs": [
            {
                "id": run.id,
                "state": run.state,
                "trigger": run.trigger.kind,
                "episode": run.trigger.episode,
                "version": numbers.get(run.version) if run.version else None,
                "reason": run.reason or run.trigger.reason,
            }
            for run in reversed(story.runs)
        ],
        "versions": [
            {
                "version": version.number,
                "digest": version.digest,
                "verdict": (
                    {"decision": version.verdict.decision, "reason": version.verdict.reason}
                    if version.verdict
                    else None
                ),
                "rollout": _steps(story.rollouts, version.digest),
            }
            for version in sorted(story.versions, key=lambda version: version.number)
        ],
        "champion": story.view.champion.number if story.view and story.view.champion else None,
        "accuracy_platform": _accuracy([answer.value for answer in answers], truths),
        "accuracy_frozen": _accuracy(frozen, truths),
        "accuracy_naive": _accuracy(stream.naive_answers()[: len(answers)], truths),
        "p50_ms": None if p50 is None else round(float(p50), 2),
        "p99_ms": None if p99 is None else round(float(p99), 2),
    }


def _steps(rollouts: Sequence[RolloutView], digest: str) -> list[dict[str, Any]]:
    return [
        {
            "kind": rollout.kind,
            "state": rollout.state,
            "steps": [
                {
                    "share": "shadow" if step.shadow else step.weight,
                    "outcome": step.outcome,
                    "candidate": (step.evidence.get("candidate") or {}).get("responses"),
                    "reason": step.reason,
                }
                for step in rollout.steps
            ],
        }
        for rollout in reversed(rollouts)
        if rollout.candidate == digest
    ]


def _accuracy(answers: Sequence[Any], truths: Sequence[Any]) -> float:
    right = sum(1 for answer, truth in zip(answers, truths, strict=True) if answer is not None and answer == truth)
    return round(right / len(truths), 5) if truths else 0.0


def write_record(path: Path, stream: Stream, answers: Sequence[Answer], frozen: Sequence[Any]) -> None:
    """Write every row with its answer, so that the numbers of the summary can be checked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    naive = stream.naive_answers()
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(
            ("row", "event_time", "prediction_id", "version", "answer", "truth", "frozen", "naive", "ms", "failure")
        )
        for place, answer in enumerate(answers):
            writer.writerow(
                (
                    stream.history_rows + place,
                    stream.times[place].isoformat(),
                    answer.prediction_id,
                    answer.version,
                    answer.value,
                    stream.truths[place],
                    frozen[place],
                    naive[place],
                    round(answer.took_ms, 3),
                    answer.failure,
                )
            )
