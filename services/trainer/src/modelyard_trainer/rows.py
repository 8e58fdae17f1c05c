"""Rows on their way through a run: features by the signature, the truth, the time, where they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_bundle.signature import Columns

__all__ = ["NO_TIME", "Rows", "category_text", "microseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIME = int(np.iinfo(np.int64).min)
"""The event time of rows that have none: before all others."""


def microseconds(time: datetime) -> int:
    """Return a time as rows hold it; exact, since a row at the very time must not count as later."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def category_text(value: Any) -> str:
    """Return a category as text; whole numbers that a missing neighbour has made fractions are whole again."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows, oldest first.

    Attributes:
        columns: feature values as models take them, each of shape (n,).
        truth: labels or values, shape (n,).
        times_us: event time in microseconds since 1970 UTC, shape (n,), int64; the lowest number where there is none.
        fed_back: whether a row is a labelled prediction, shape (n,).
    """

    columns: Columns
    truth: npt.NDArray[Any]
    times_us: npt.NDArray[np.int64]
    fed_back: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, places: npt.NDArray[Any] | slice) -> Rows:
        """Return some of the rows, by place or by mask."""
        return Rows(
            {name: values[places] for name, values in self.columns.items()},
            self.truth[places],
            self.times_us[places],
            self.fed_back[places],
        )

    def followed_by(self, later: Rows) -> Rows:
        """Return these rows and later ones, in the order of event time; equal times keep their order."""
        joined = Rows(
            {name: np.concatenate([values, later.columns[name]]) for name, values in self.columns.items()},
            np.concatenate([self.truth, later.truth]),
            np.concatenate([self.times_us, later.times_us]),
            np.concatenate([self.fed_back, later.fed_back]),
        )
        return joined.take(np.argsort(joined.times_us, kind="stable"))

    def time_of(self, place: int) -> datetime | None:
        """Return the event time of one row, or None where rows have none."""
        value = int(self.times_us[place])
        return _EPOCH + timedelta(microseconds=value) if value > NO_TIME else None

    @property
    def digest(self) -> str:
        """SHA-256 over all values of all rows, in order."""
        digest = hashlib.sha256()
        for name in sorted(self.columns):
            digest.update(name.encode())
            values = self.columns[name]
            digest.update(values.tobytes() if values.dtype != object else repr(values.tolist()).encode())
        truth = self.truth
        digest.update(truth.tobytes() if truth.dtype != object else repr(truth.tolist()).encode())
        digest.update(self.times_us.tobytes())
        return f"sha256:{digest.hexdigest()}"
