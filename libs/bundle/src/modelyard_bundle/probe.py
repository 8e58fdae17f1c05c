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

__all__ = ["PROBE_FILE", "PROBE_ROWS", "replay", "write_probe"]

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


def replay(runtime: Runtime, signature: Signature, folder: Path) -> None:
    """Ask the runtime the recorded questions. Raise Invalid when an answer differs."""
    try:
        document = json.loads((folder / PROBE_FILE).read_bytes())
        rows, expected = document["rows"], np.asarray(document["predictions"])
        chances = document["probabilities"]
    except (OSError, ValueError, KeyError) as exc:
        raise Invalid(f"{PROBE_FILE}: cannot be read ({type(exc).__name__})") from exc
    answer = runtime.predict(columns_from_rows(signature, rows))
    if signature.task == "regression":
        values = expected.astype(float)
        same = np.isclose(answer.labels.astype(float), values, rtol=_TOLERANCE, atol=_TOLERANCE * scale(values))
    else:
        same = answer.labels.astype(str) == expected.astype(str)
    if chances is not None and answer.probabilities is not None:
        close = np.isclose(answer.probabilities, np.asarray(chances), rtol=_TOLERANCE, atol=_TOLERANCE)
        same = same & close.all(axis=1)
    if not bool(np.all(same)):
        wrong = int((~same).sum())
        raise Invalid(f"{wrong} of {len(rows)} probe rows are not answered as recorded by the {runtime.name} runtime")
