"""Split: which rows are learned from and which judge. Nobody is judged on rows that it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.rows import Rows, microseconds

__all__ = ["Division", "split_first", "split_fresh"]

_LEAST_LEARNED = 20


@dataclass(frozen=True, slots=True)
class Division:
    """What a run learns from, and what it is judged on."""

    learn: Rows
    judge: Rows
    kind: Literal["test", "fresh"]
    insufficient: str | None = None


def split_first(spec: ManagedModelSpec, rows: Rows, *, seed: int) -> Division:
    """Divide rows by ``train.split``: the newest share, or a random one (stratification is left to chance)."""
    test = max(1, round(len(rows) * spec.train.split.test))
    if len(rows) - test < _LEAST_LEARNED:
        raise RunFailed(f"spec.train.split.test: leaves {len(rows) - test} rows to learn from (at least 20)")
    if spec.train.split.by == "time":
        return Division(_recent(spec, rows.take(slice(0, len(rows) - test))), rows.take(slice(-test, None)), "test")
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    judge, learn = np.sort(shuffled[:test]), np.sort(shuffled[test:])
    return Division(_recent(spec, rows.take(learn)), rows.take(judge), "test")


def split_fresh(spec: ManagedModelSpec, rows: Rows, *, seen_until: datetime | None) -> Division:
    """Set the newest labelled rows aside for judging, and learn from those that are older than all of them.

    A row at the very time of the first fresh one is neither learned from nor judged: ``data.until`` has to show
    to everybody that the version has not seen what it is judged on.

    Args:
        rows: history and feedback, in the order of event time.
        seen_until: the champion's ``data.until``; rows up to then cannot judge it.
    """
    demand = spec.fresh
    assert demand is not None  # noqa: S101  # the caller asks only when a gate demands fresh rows
    unseen = rows.fed_back.copy()
    if seen_until is not None:
        unseen &= rows.times_us > microseconds(seen_until)
    places = np.flatnonzero(unseen)[-demand.rows :]
    insufficient = None
    if places.size < demand.min_rows:
        insufficient = f"{places.size} fresh labelled rows; it takes {demand.min_rows}"
    learnable = np.ones(len(rows), dtype=bool) if spec.train.learn_from.feedback else ~rows.fed_back
    if places.size:
        learnable &= rows.times_us < rows.times_us[places[0]]
    learn = _recent(spec, rows.take(learnable))
    if len(learn) < _LEAST_LEARNED:
        raise RunFailed(f"only {len(learn)} rows lie before the fresh ones; at least {_LEAST_LEARNED} to learn from")
    return Division(learn, rows.take(places), "fresh", insufficient)


def _recent(spec: ManagedModelSpec, rows: Rows) -> Rows:
    recent = spec.train.learn_from.recent
    return rows if recent is None else rows.take(slice(-recent.rows, None))
