"""What the engine is asked and what it answers, whichever protocol carried it.

Made for each request, so they are structs: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from sys import getsizeof
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid, ModelyardError, Unavailable
from modelyard_contracts.bundle_v1 import Signature

from modelyard_inference.domain.answers import Answers

__all__ = ["Answer", "Answered", "Away", "Failed", "Late", "Matrix", "Query", "Role", "Rows", "plain"]

Role = Literal["champion", "candidate", "shadow"]


class Late(Unavailable):
    """It was not answered within its deadline."""


class Failed(ModelyardError):
    """The model failed on this request; the log has it under this request id."""


class Away(Unavailable):
    """The process that runs this version has ended, and is started again.

    Attributes:
        began: the request was in its hands, and may be what ended it.
        is_back: whether it is worth while to ask again.
    """

    def __init__(self, message: str, *, began: bool, is_back: Callable[[], bool]) -> None:
        super().__init__(message, retry_after_s=1)
        self.began = began
        self.is_back = is_back


class Matrix(msgspec.Struct, frozen=True):
    """All numeric features in the signature's order, row by row.

    Attributes:
        values: rows x width of them, end to end; in an array NaN is a missing value, in a list None.
        width: how many a row has.
    """

    values: list[Any] | npt.NDArray[Any]
    width: int

    def columns(self) -> tuple[Sequence[Any], ...]:
        """Return the values of each position, as plain values."""
        values = plain(self.values)
        return tuple(values[start :: self.width] for start in range(self.width))


def plain(values: list[Any] | npt.NDArray[Any]) -> list[Any]:
    """Return values as plain ones, a missing one as None."""
    if isinstance(values, list):
        return values
    plainly: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        for place in np.flatnonzero(np.isnan(values)).tolist():
            plainly[place] = None
    return plainly


class Rows(msgspec.Struct, frozen=True):
    """Values that somebody sent, before a signature has checked them.

    Attributes:
        count: number of rows.
        named: feature to its values, each of length count.
        positional: values of all features by position, each of length count; their names come from the signature.
        matrix: the same of the numeric features, in one piece.
        source: what the positional values are called in the request, for messages.
        untyped: every value came as text (CSV); the signature says what it means.
        narrow: those of the names whose values came as a matrix of one column: where the model has no such feature, it
            holds all numeric features, as a wider one does.
        extras_ignored: names that are no features mean nothing, as to MLflow's server; elsewhere they are refused.
    """

    count: int
    named: Mapping[str, Sequence[Any]]
    positional: tuple[Sequence[Any], ...] = ()
    matrix: Matrix | None = None
    source: str = ""
    untyped: bool = False
    narrow: Sequence[str] = ()
    extras_ignored: bool = False

    def held_bytes(self) -> int:
        """Return about how much memory the values take. It looks at each, so it is for those who keep them."""
        columns = [*self.named.values(), *self.positional]
        held = sum(map(_held_bytes, columns)) + (0 if self.matrix is None else _held_bytes(self.matrix.values))
        return held + _held_bytes(self.named) + sum(map(_nested_bytes, columns)) if self.extras_ignored else held


def _held_bytes(values: Iterable[Any] | npt.NDArray[Any]) -> int:
    return values.nbytes if isinstance(values, np.ndarray) else sum(map(getsizeof, values))


def _nested_bytes(values: Iterable[Any]) -> int:
    """Return what is in lists and objects, which no feature is made of and an extra may be, however deep."""
    held, left = 0, [value for value in values if isinstance(value, list | dict)]
    while left:
        value = left.pop()
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        held += _held_bytes(inner)
        left += [one for one in inner if isinstance(one, list | dict)]
    return held


class Query(msgspec.Struct, frozen=True):
    """One request to one model.

    Attributes:
        version: a number, a digest, ``@champion`` or ``@candidate``; None leaves the choice to the routing table.
        event_times: when each row happened; one for all rows, or one a row; empty means on arrival.
        routing_key: requests with one key go to one version; None means the prediction id.
        logged: whether it is part of what the model is asked in production. If not, nothing of it is written down, and
            it takes no part in a rollout: without a version the champion answers.
        arrival: wall time.
        deadline: seconds, monotonic.
    """

    model: str
    rows: Rows
    arrival: datetime
    deadline: float
    version: str | None = None
    event_times: tuple[datetime, ...] = ()
    routing_key: str | None = None
    logged: bool = True

    def __post_init__(self) -> None:
        """Refuse more or fewer event times than rows."""
        if self.event_times and len(self.event_times) not in (1, self.rows.count):
            raise Invalid.at("event_time", f"has {len(self.event_times)} times for {self.rows.count} rows")


class Answer(msgspec.Struct, frozen=True):
    """What one version said, and who it was."""

    prediction_id: str
    model: str
    number: int
    digest: str
    role: Role
    signature: Signature
    answers: Answers


class Answered(msgspec.Struct, frozen=True):
    """What the champion said to several requests that came together: a collection of ``Answer`` for who needs each.

    Attributes:
        ids: of each; answers: to each.
    """

    ids: Sequence[str]
    model: str
    number: int
    digest: str
    signature: Signature
    answers: Iterable[Answers]

    def __len__(self) -> int:
        """Return how many requests there are."""
        return len(self.ids)

    def __iter__(self) -> Iterator[Answer]:
        """Yield the answer to each."""
        for prediction_id, its in zip(self.ids, self.answers, strict=True):
            yield Answer(prediction_id, self.model, self.number, self.digest, "champion", self.signature, its)
