"""Several requests as one batch: rows laid end to end, answers given back to their owners.

Laws: each request gets the answers that it would have got alone; one that fails, fails alone. A batch that fails is
halved until those that fail are found, so that n requests of which one is bad cost about 2·log n runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Table
from modelyard_common.errors import Invalid, ModelyardError

from modelyard_inference.domain.answers import AnswerReader, Answers
from modelyard_inference.domain.binding import Bound

__all__ = ["Outcome", "answer_all", "answers_from", "batches", "is_nobodys", "merged", "take"]

Outcome = Answers | Exception
"""What became of one request of a batch."""


class Sized(Protocol):
    """Waits in a queue.

    Attributes:
        rows: how many it has.
        alone: it is not laid together with others.
    """

    @property
    def rows(self) -> int: ...

    @property
    def alone(self) -> bool: ...


W = TypeVar("W", bound=Sized)


def take(queue: deque[W], most_rows: int) -> list[W]:
    """Take from the front of a queue what runs as one batch: never less than one, else no more rows than most_rows."""
    batch: list[W] = []
    rows = 0
    while queue:
        first = queue[0]
        if batch and (first.alone or rows + first.rows > most_rows):
            break
        batch.append(queue.popleft())
        rows += first.rows
        if first.alone:
            break
    return batch


def batches(counts: Sequence[int], most_rows: int) -> Iterator[Sequence[int]]:
    """Yield the same of requests that are there already: how many rows each of a batch has.

    Args:
        counts: of all, in their order.
    """
    if sum(counts) <= most_rows:
        yield counts
        return
    start, rows = 0, 0
    for place, count in enumerate(counts):
        if place > start and rows + count > most_rows:
            yield counts[start:place]
            start, rows = place, 0
        rows += count
    yield counts[start:]


def answer_all(
    predict: Callable[[Table], Predicted],
    reader: AnswerReader,
    bounds: Sequence[Bound],
    wanted: Callable[[], bool] = lambda: True,
) -> list[Outcome]:
    """Return what became of each request. Whatever the runtime raises belongs to the request that it fails on.

    Args:
        wanted: whether anybody still waits; asked before a failed batch is halved.
    """
    try:
        return answers_from(reader, bounds, predict(merged(bounds)))
    except Exception as exc:
        if len(bounds) == 1 or is_nobodys(exc) or not wanted():
            return [exc] * len(bounds)
    half = len(bounds) // 2
    first = answer_all(predict, reader, bounds[:half], wanted)
    return first + answer_all(predict, reader, bounds[half:], wanted)


def answers_from(reader: AnswerReader, bounds: Sequence[Bound], predicted: Predicted) -> list[Outcome]:
    """Return to each request its part of what a runtime answered for all. Raise BadAnswer as ``reader`` does."""
    return list(reader.split([bound.rows.count for bound in bounds], predicted))


def is_nobodys(error: Exception) -> bool:
    """Return whether a failure has nothing to do with what was asked: the runtime is away, or has no time."""
    return isinstance(error, ModelyardError) and not isinstance(error, Invalid)


def merged(bounds: Sequence[Bound]) -> Table:
    """Return the rows of all, end to end, as a runtime takes them."""
    first = bounds[0]
    if len(bounds) == 1:
        return first.columns
    texts = zip(*(bound.texts for bound in bounds), strict=True)
    return first.binder.table(
        np.concatenate([bound.numbers for bound in bounds]), [np.concatenate(columns) for columns in texts]
    )
