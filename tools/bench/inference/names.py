"""What is called how, for all parts of the benchmark; imports nothing, so that reading a record stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = ["BUNDLE", "DIALECTS", "LOGGED", "MODEL", "MODELS", "UNDONE", "Dialect"]

MODEL = "bench"
"""What every server calls its model."""
MODELS: Mapping[str, str] = {
    "linear": "standardised logistic regression of 30 numbers",
    "forest": "random forest of 100 trees",
    "boosted": "histogram gradient boosting, 100 iterations",
}
Dialect = Literal["json", "binary", "grpc", "mlflow"]
DIALECTS: Mapping[Dialect, str] = {
    "json": "Open Inference Protocol V2, JSON",
    "binary": "Open Inference Protocol V2, binary tensors",
    "grpc": "Open Inference Protocol V2, gRPC with raw contents",
    "mlflow": "MLflow scoring, dataframe_split",
}
BUNDLE = "BENCH_BUNDLE"
"""The environment variable that names the folder of the bundle."""
LOGGED = "BENCH_LOGGED"
"""The environment variable that holds the share of requests whose features are logged."""
UNDONE = "BENCH_UNDONE"
"""The environment variable that names the choice that is undone."""
