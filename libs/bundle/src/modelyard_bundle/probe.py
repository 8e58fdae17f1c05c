"""The probe set: some rows with the answers recorded when the version was made. Who answers otherwise never serves."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import TWIN_TOLERANCE, HasRowWay, Predicted, Runtime, scale
from modelyard_bundle.signature import Columns, columns_from_rows, single_rows

__all__ = [
    "PROBE_FILE",
    "PROBE_ROWS",
    "answers_alone",
    "has_labels_of",
    "has_shape_of",
    "probe_rows",
    "replay",
    "write_probe",
]

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
    """Ask the runtime the recorded questions, together and by themselves. Raise Invalid when an answer differs."""
    rows, expected = _recorded(folder / PROBE_FILE)
    columns = columns_from_rows(signature, rows)
    together = runtime.predict(columns)
    _check(signature, expected, together, runtime.name)
    _check(signature, expected, answers_alone(runtime, signature, columns, together), runtime.name)


def answers_alone(runtime: Runtime, signature: Signature, columns: Columns, together: Predicted) -> Predicted:
    """Return what a runtime answers to rows of which it is asked the first by themselves, as many as it says.

    Args:
        together: what it answers to all rows at once; the others keep theirs.
    """
    asked = runtime.rows_alone if isinstance(runtime, HasRowWay) else 0
    found = [runtime.predict(row) for row in islice(single_rows(signature, columns), asked)]
    labels, chances = together
    found.append(Predicted(labels[asked:], None if chances is None else chances[asked:]))
    parts = [one.probabilities for one in found if one.probabilities is not None]
    return Predicted(np.concatenate([one.labels for one in found]), np.concatenate(parts) if parts else None)


def has_shape_of(expected: Predicted, answer: Predicted) -> bool:
    """Return whether answers are to as many rows as those that are expected, with as many classes if both have some."""
    pairs = zip(expected, answer, strict=True)
    return all(one.shape == other.shape for one, other in pairs if one is not None and other is not None)


def has_labels_of(expected: Predicted, answer: Predicted) -> npt.NDArray[np.bool_]:
    """Return of each row whether its label is the one expected, or may be another: its chances are even.

    Which of two labels it is there is up to rounding.
    """
    same: npt.NDArray[np.bool_] = answer.labels.astype(str) == expected.labels.astype(str)
    if expected.probabilities is None or expected.probabilities.shape[1] < 2:
        return same
    chances = np.sort(expected.probabilities, axis=1)
    return same | (chances[:, -1] - chances[:, -2] <= 2 * TWIN_TOLERANCE)


def _check(signature: Signature, expected: Predicted, answer: Predicted, runtime: str) -> None:
    if not has_shape_of(expected, answer):
        raise Invalid(f"{PROBE_FILE}: has another number of classes, or of answers, than the {runtime} runtime")
    if signature.task == "regression":
        values = expected.labels.astype(float)
        atol = TWIN_TOLERANCE * scale(values)
        same = np.isclose(answer.labels.astype(float), values, rtol=TWIN_TOLERANCE, atol=atol)
    else:
        same = has_labels_of(expected, answer)
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
