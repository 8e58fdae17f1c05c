"""The probe set: some rows with the answers recorded when the version was made. Who answers otherwise never serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import TWIN_TOLERANCE, Predicted, Runtime, scale
from modelyard_bundle.signature import Columns, columns_from_rows, single_rows

__all__ = ["PROBE_FILE", "PROBE_ROWS", "answers_alone", "has_shape_of", "probe_rows", "replay", "write_probe"]

PROBE_FILE = "probe.json"
PROBE_ROWS = 64
"""Enough to catch a wrong file, column order or runtime; small enough to replay at every load."""


def write_probe(folder: Path, rows: list[dict[str, Any]], predicted: Predicted) -> None:
    """Record rows and the estimator's answers."""
    document = {
        "rows": rows,
        "predictions": predicted.labels.tolist(),
        "probabilities": None if predicted.probabilities is None else predicted.probabilities.tolist(),
    }
    (folder / PROBE_FILE).write_text(json.dumps(document))


def probe_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a bundle's probe set. Raise Invalid when it cannot be read."""
    rows, _ = _recorded(folder / PROBE_FILE)
    return rows


def replay(runtime: Runtime, signature: Signature, folder: Path) -> None:
    """Ask the runtime the recorded questions: together, and each by itself. Raise Invalid when an answer differs."""
    rows, expected = _recorded(folder / PROBE_FILE)
    columns = columns_from_rows(signature, rows)
    _check(signature, expected, runtime.predict(columns), runtime.name)
    if not runtime.blocking:  # who is not quick has no way of its own for one row, and would be asked at length
        _check(signature, expected, answers_alone(runtime, signature, columns), runtime.name)


def answers_alone(runtime: Runtime, signature: Signature, columns: Columns) -> Predicted:
    """Return what a runtime answers to each row by itself, end to end."""
    found = [runtime.predict(row) for row in single_rows(signature, columns)]
    chances = [one.probabilities for one in found if one.probabilities is not None]
    return Predicted(np.concatenate([one.labels for one in found]), np.concatenate(chances) if chances else None)


def has_shape_of(expected: Predicted, answer: Predicted) -> bool:
    """Return whether answers are to as many rows as those that are expected, with as many classes if both have some."""
    pairs = zip(expected, answer, strict=True)
    return all(one.shape == other.shape for one, other in pairs if one is not None and other is not None)


def _check(signature: Signature, expected: Predicted, answer: Predicted, runtime: str) -> None:
    if not has_shape_of(expected, answer):
        raise Invalid(f"{PROBE_FILE}: has another number of classes, or of answers, than the {runtime} runtime")
    if signature.task == "regression":
        values = expected.labels.astype(float)
        atol = TWIN_TOLERANCE * scale(values)
        same = np.isclose(answer.labels.astype(float), values, rtol=TWIN_TOLERANCE, atol=atol)
    else:
        same = answer.labels.astype(str) == expected.labels.astype(str)
    if expected.probabilities is not None and answer.probabilities is not None:
        close = np.isclose(answer.probabilities, expected.probabilities, rtol=TWIN_TOLERANCE, atol=TWIN_TOLERANCE)
        same = same & close.all(axis=1)
    if not bool(np.all(same)):
        wrong = int((~same).sum())
        raise Invalid(f"{wrong} of {len(same)} probe rows are not answered as recorded by the {runtime} runtime")


def _recorded(path: Path) -> tuple[list[dict[str, Any]], Predicted]:
    """Return the rows and the answers of a probe set."""
    try:
        document = json.loads(path.read_bytes())
        rows, chances = document["rows"], document["probabilities"]
        labels = np.asarray(document["predictions"])
        probabilities = None if chances is None else np.asarray(chances, dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Invalid(f"{path.name}: cannot be read ({type(exc).__name__})") from exc
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or labels.ndim != 1:
        raise Invalid(f"{path.name}: cannot be read (it is not a table of rows with their answers)")
    if len(labels) != len(rows):
        raise Invalid(f"{path.name}: holds {len(labels)} answers to {len(rows)} rows")
    return rows, Predicted(labels, probabilities)
