"""Evaluate: candidate, champion and eligible predecessors on the same rows, into one Evaluation record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from modelyard_bundle.loading import load
from modelyard_bundle.manifest import verify
from modelyard_bundle.runtimes.base import Predicted, Runtime, positive_scores
from modelyard_bundle.runtimes.sklearn import model_input
from modelyard_bundle.signature import Columns
from modelyard_client import RegistryClient
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_contracts.bundle_v1 import Signature, SliceMetrics
from modelyard_contracts.evaluation_v1 import Evaluation, MetricValue, Score
from modelyard_contracts.metrics_v1 import METRICS_BY_TASK
from modelyard_contracts.registry_v1 import ModelView, VersionSummary
from modelyard_stats.intervals import bootstrap
from modelyard_stats.metrics import compute, compute_all

from modelyard_trainer.context import patiently
from modelyard_trainer.rows import Rows
from modelyard_trainer.steps.split import Division

__all__ = ["Contender", "evaluate", "importances", "labels_of", "load_contenders", "slices"]

LabelsOf = Callable[[Columns], npt.NDArray[Any]]

_LEAST_SLICE_ROWS = 30
_MOST_SLICES = 40
_IMPORTANCE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Contender:
    """A version that can be scored, or the reason why not."""

    digest: str
    role: Literal["champion", "contender"]
    data_until: datetime | None
    runtime: Runtime | None = None
    signature: Signature | None = None
    skipped: str = ""


def load_contenders(
    registry: RegistryClient, view: ModelView | None, judge: Rows, *, work_dir: Path
) -> list[Contender]:
    """Return champion and predecessors in contention, each with its runtime or the reason why it is not scored."""
    if view is None or len(judge) == 0:
        return []
    first = judge.time_of(0)
    named: list[tuple[Literal["champion", "contender"], VersionSummary]] = []
    if view.champion is not None:
        named.append(("champion", view.champion))
    named += [("contender", version) for version in view.contenders]
    return [_load(registry, role, version, first, work_dir) for role, version in named]


def _load(
    registry: RegistryClient,
    role: Literal["champion", "contender"],
    version: VersionSummary,
    first: datetime | None,
    work_dir: Path,
) -> Contender:
    entry = Contender(version.digest, role, version.data_until)
    if first is None:
        reason = "the judged rows have no event time, so nobody can tell whether it has learned from them"
        return Contender(entry.digest, role, entry.data_until, skipped=reason)
    if version.data_until is not None and version.data_until >= first:
        reason = f"has learned from rows up to {version.data_until}, and the judged rows begin at {first}"
        return Contender(entry.digest, role, entry.data_until, skipped=reason)
    folder = work_dir / "contenders" / version.digest.removeprefix("sha256:")
    try:
        patiently("bundle", lambda: registry.download_bundle(version.model, version.digest, folder), for_s=60.0)
        manifest = verify(folder, version.digest)
        return Contender(entry.digest, role, entry.data_until, load(folder, manifest), manifest.signature)
    except ModelyardError as exc:
        return Contender(entry.digest, role, entry.data_until, skipped=f"cannot be loaded: {exc.message}")


def evaluate(
    run: str,
    division: Division,
    *,
    signature: Signature,
    candidate: Predicted | None,
    digest: str,
    data_until: datetime | None,
    contenders: list[Contender],
) -> Evaluation:
    """Return the Evaluation record of a run.

    Args:
        run: its id, or ``external`` for a model that was brought.
        candidate: the new version's answers on the judged rows; None when there are none.
        digest: the new version's.
    """
    judge = division.judge
    scores: list[Score] = []
    skipped: dict[str, str] = {}
    if candidate is not None:
        metrics = _metrics(signature, judge, candidate)
        scores.append(Score(digest=digest, role="candidate", data_until=data_until, metrics=metrics))
    for contender in contenders:
        if contender.runtime is None or contender.signature is None:
            skipped[contender.digest] = contender.skipped
            continue
        try:
            answers = contender.runtime.predict(_for(contender.signature, signature, judge))
        except Exception as exc:  # whatever its libraries raise: the run goes on without it
            why = exc.message if isinstance(exc, ModelyardError) else type(exc).__name__
            skipped[contender.digest] = f"cannot be asked: {why}"
            continue
        scores.append(
            Score(
                digest=contender.digest,
                role=contender.role,
                data_until=contender.data_until,
                metrics=_metrics(contender.signature, judge, answers),
            )
        )
    return Evaluation(
        run=run,
        kind=division.kind,
        rows=len(judge),
        rows_digest=judge.digest,
        rows_from=judge.time_of(0) if len(judge) else None,
        rows_until=judge.time_of(-1) if len(judge) else None,
        scores=tuple(scores),
        skipped=skipped,
        insufficient=division.insufficient,
    )


def _for(signature: Signature, now: Signature, rows: Rows) -> Columns:
    if signature.task != now.task:
        raise Invalid(f"it was made for {signature.task}")
    absent = [column.name for column in signature.features if column.name not in rows.columns]
    if absent:
        raise Invalid(f"the judged rows have no {absent[0]}")
    return {column.name: rows.columns[column.name] for column in signature.features}


def _metrics(signature: Signature, rows: Rows, answers: Predicted) -> dict[str, MetricValue]:
    score = positive_scores(signature, answers)
    truth, labels = rows.truth, answers.labels
    found: dict[str, MetricValue] = {}
    for name in METRICS_BY_TASK[signature.task]:
        if name in {"roc_auc", "log_loss"} and len(signature.classes) > 2:
            continue

        def on(places: npt.NDArray[np.int64], name: str = name) -> float | None:
            part = None if score is None else score[places]
            return compute(name, truth[places], labels[places], part, positive=signature.positive_class)

        value = on(np.arange(len(rows)))
        if value is None:
            continue
        low, high = bootstrap(on, len(rows)) or (value, value)
        found[name] = MetricValue(value=value, low=low, high=high)
    return found


def slices(signature: Signature, rows: Rows, answers: Predicted) -> list[SliceMetrics]:
    """Return metrics on all judged rows, on their older and newer half, and by category where there are enough rows."""
    score = positive_scores(signature, answers)
    places = np.arange(len(rows))
    half = len(rows) // 2
    parts: list[tuple[str, npt.NDArray[Any]]] = [
        ("all", places),
        ("older half", places[:half]),
        ("newer half", places[half:]),
    ]
    for column in signature.features:
        if column.type == "category":
            values = rows.columns[column.name]
            parts += [(f"{column.name}={value}", np.flatnonzero(values == value)) for value in sorted(set(values))]
    result = []
    for name, chosen in parts[:_MOST_SLICES]:
        if chosen.size < _LEAST_SLICE_ROWS and name != "all":
            continue
        metrics = compute_all(
            METRICS_BY_TASK[signature.task],
            rows.truth[chosen],
            answers.labels[chosen],
            None if score is None or len(signature.classes) > 2 else score[chosen],
            positive=signature.positive_class,
        )
        result.append(SliceMetrics(slice=name, rows=int(chosen.size), metrics=metrics))
    return result


def labels_of(estimator: Any, signature: Signature) -> LabelsOf:
    """Return what answers columns with an estimator's labels."""
    return lambda columns: np.asarray(estimator.predict(model_input(estimator, signature, columns)))


def importances(signature: Signature, labels: LabelsOf, rows: Rows, *, seed: int) -> Mapping[str, float]:
    """Return the permutation importance of each feature (Breiman, 2001): what the metric loses when it is shuffled.

    Measured on at most a thousand of the newest rows, three shuffles each: a ranking, not an estimate.
    """
    part = rows.take(slice(-_IMPORTANCE_ROWS, None))
    if signature.task == "anomaly" or len(part) == 0:
        return dict.fromkeys((column.name for column in signature.features), 0.0)

    def quality(columns: Columns) -> float:
        predicted = labels(columns)
        if signature.task == "regression":
            return -float(np.sqrt(np.mean((predicted - part.truth) ** 2)))
        return float(np.mean(predicted == part.truth))

    generator = np.random.default_rng(seed)
    whole = quality(part.columns)
    found: dict[str, float] = {}
    for column in signature.features:
        values = part.columns[column.name]
        lost = [whole - quality({**part.columns, column.name: generator.permutation(values)}) for _ in range(3)]
        found[column.name] = float(np.mean(lost))
    return found
