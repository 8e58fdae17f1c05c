"""What is written of each request that is answered: a block, the contract's, which holds what all rows share once.

It is written while the caller waits, and sent to drift as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modelyard_contracts.prediction_blocks_v1 import PredictionBlock as Block

from modelyard_inference.domain.answers import AnswerTable

__all__ = ["Alike", "Block", "Stamp", "Totals"]


class Stamp(NamedTuple):
    """What blocks say that is no number of theirs, as it lies in them.

    Attributes:
        shared: the fields of a block from ``model`` to ``names``.
        rest: those from ``error`` to the end.
    """

    shared: tuple[Any, ...]
    rest: tuple[Any, ...]

    def block(
        self,
        prediction_id: str,
        rows: int,
        values: Sequence[Any] | memoryview = (),
        predictions: Sequence[Any] = (),
        scores: Sequence[Any] | None = None,
    ) -> Block:
        """Return a block of it."""
        return Block._make((prediction_id, rows, *self.shared, values, predictions, scores, *self.rest))


@dataclass(frozen=True, slots=True)
class Alike(Iterable[Block]):
    """The blocks of requests that were answered together, which share all but their ids and their numbers.

    Attributes:
        stamp: what they share.
        ids: of each.
        values: of all rows, end to end, as bytes.
        answers: to all of them.
    """

    stamp: Stamp
    ids: Sequence[str]
    values: memoryview
    answers: AnswerTable

    @property
    def rows(self) -> int:
        """How many all have."""
        return len(self.answers.labels)

    def __iter__(self) -> Iterator[Block]:
        """Yield each."""
        width, start = len(self.values) // self.rows, 0
        for prediction_id, count, its in zip(self.ids, self.answers.counts, self.answers, strict=True):
            end = start + count * width
            yield self.stamp.block(prediction_id, count, self.values[start:end], its.labels, its.scores)
            start = end


@dataclass(frozen=True, slots=True)
class Totals:
    """What one version has done since this process started.

    Attributes:
        predict_s: seconds to check rows, to wait for a turn and to run the model, of all answers together.
    """

    answers: int
    failures: int
    rows: int
    predict_s: float
