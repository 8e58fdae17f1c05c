"""Fit: the recipe on the rows to learn from."""

from __future__ import annotations

import warnings
from typing import Any

from modelyard_bundle.runtimes.sklearn import as_frame
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import Signature
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.recipes import build
from modelyard_trainer.rows import Rows

__all__ = ["fit"]

_log = get_logger(__name__)


def fit(spec: ManagedModelSpec, signature: Signature, learn: Rows) -> Any:
    """Return the fitted pipeline. The same rows, recipe and seed give the same model."""
    pipeline = build(spec.train.recipe, signature, spec.train.seed)
    frame = as_frame(signature, learn.columns)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if signature.task == "anomaly":
                pipeline.fit(frame)
            else:
                pipeline.fit(frame, learn.truth)
        except (ValueError, TypeError) as exc:
            raise RunFailed(f"spec.train.recipe: the estimator refuses: {str(exc).splitlines()[0][:300]}") from exc
    # With early stopping and a named metric it keeps the scorer, which only fitting needs and skops cannot store.
    vars(pipeline[-1]).pop("_scorer", None)
    for warning in caught:
        _log.warning("fit.warning", category=warning.category.__name__)
    return pipeline
