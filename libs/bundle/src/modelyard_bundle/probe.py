"""The probe set: some rows with the answers recorded when the version was made. Who answers otherwise never serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import Predicted, Runtime, scale
from modelyard_bundle.signature import columns_from_rows

__all__ = ["PROBE_FILE", "PROBE_ROWS", "probe_rows", "replay", "write_probe"]

PROBE_FILE = "probe.json"
PROBE_ROWS = 64
"""Enough to catch a wrong file, column order or runtime; small enough to replay at every load."""
_TOLERANCE = 1e-4
"""Absolute and relative: ONNX in float32 is within 1e-6 of scikit-learn; a wrong model is off by far more."""


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
    """Ask the runtime the recorded questions. Raise Invalid when an answer differs."""
    rows, expected = _recorded(folder / PROBE_FILE)
    answer = runtime.predict(columns_from_rows(signature, rows))
    if signature.task == "regression":
        values = expected.labels.astype(float)
        same = np.isclose(answer.labels.astype(float), values, rtol=_TOLERANCE, atol=_TOLERANCE * scale(values))
    else:
        same = answer.labels.astype(str) == expected.labels.astype(str)
    if expected.probabilities is not None and answer.probabilities is not None:
        if answer.probabilities.shape != expected.probabilities.shape:
            raise Invalid(f"{PROBE_FILE}: has another number of classes than the {runtime.name} runtime")
        close = np.isclose(answer.probabilities, expected.probabilities, rtol=_TOLERANCE, atol=_TOLERANCE)
        same = same & close.all(axis=1)
    if not bool(np.all(same)):
        wrong = int((~same).sum())
        raise Invalid(f"{wrong} of {len(rows)} probe rows are not answered as recorded by the {runtime.name} runtime")


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
