"""BentoML with its adaptive batching. BENCH_MODEL names the model."""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import joblib
import numpy as np
from bentoml.validators import DType
from numpy.typing import NDArray


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Bench:
    """Answers rows."""

    def __init__(self) -> None:
        self._estimator = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=256)  # type: ignore[untyped-decorator]
    def predict(self, rows: Annotated[NDArray[np.float64], DType("float64")]) -> NDArray[np.int64]:
        """Return the labels."""
        labels: NDArray[np.int64] = self._estimator.predict(rows)
        return labels
