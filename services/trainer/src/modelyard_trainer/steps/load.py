"""Load: the dataset version of the manifest, and the labelled predictions up to the run's sequence number."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from modelyard_common.errors import NotFound
from modelyard_contracts.refs import DatasetRef, RefError

from modelyard_trainer.context import RunContext, patiently
from modelyard_trainer.errors import RunFailed

__all__ = ["Loaded", "load"]

_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Raw rows as they came."""

    history: pd.DataFrame
    feedback: pd.DataFrame | None
    source_digest: str


def load(context: RunContext) -> Loaded:
    """Fetch what the run reads. Raise RunFailed when the source is not a dataset version that training knows."""
    uri = context.spec.data.source.uri
    try:
        digest = str(DatasetRef.parse(uri).digest)
    except RefError as exc:
        raise RunFailed(f"spec.data.source.uri: {exc}") from exc
    try:
        path = patiently(
            "dataset",
            lambda: context.training.download_dataset(digest, context.work_dir / "history.parquet"),
            for_s=_PATIENCE_S,
        )
    except NotFound as exc:
        raise RunFailed(f"spec.data.source.uri: training has no dataset {digest}; upload it and apply again") from exc
    history = pd.read_parquet(path)
    feedback = None
    wanted = context.spec.train.learn_from.feedback or context.spec.fresh is not None
    if context.is_retraining and wanted and context.drift is not None:
        drift = context.drift
        labelled = patiently(
            "labelled rows",
            lambda: drift.labelled(
                context.job.model, context.job.until_label_seq, context.work_dir / "labelled.parquet"
            ),
            for_s=_PATIENCE_S,
        )
        feedback = pd.read_parquet(labelled)
    return Loaded(history, feedback, digest)
