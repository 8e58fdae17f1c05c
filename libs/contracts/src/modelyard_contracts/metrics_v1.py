"""The names of metrics and which way is better: the trainer computes them, the registry judges by them."""

from __future__ import annotations

__all__ = ["HIGHER_IS_BETTER", "METRICS_BY_TASK"]

HIGHER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "f1": True,
    "roc_auc": True,
    "log_loss": False,
    "rmse": False,
    "mae": False,
    "r2": True,
}

METRICS_BY_TASK: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
    "anomaly": ("accuracy", "balanced_accuracy", "f1", "roc_auc"),
}
