"""What is written of each request that is answered: a block, the contract's, which holds what all rows share once.

It is written while the caller waits, and sent to drift as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelyard_contracts.prediction_blocks_v1 import PredictionBlock as Block

from modelyard_inference.domain.answers import AnswerTable

__all__ = ["Alike", "Block", "Totals"]


@dataclass(frozen=True, slots=True)
class Alike(Iterable[Block]):
    """The blocks of requests that were answered together, which share all but their ids and their numbers.

    Attributes:
        shared: what they share; its id, rows, values, predictions and scores are none of any.
        ids: of each.
        values: of all rows, end to end, as bytes.
        answers: to all of them.
    """

    shared: Block
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
            yield self.shared._replace(
                id=prediction_id,
                rows=count,
                values=self.values[start:end],
                predictions=its.labels,
                scores=its.scores,
            )
            start = end


@dataclass(frozen=True, slots=True)
class Totals:
    """What one version has done since this process started.

    Attributes:
        predict_s: seconds to check rows and to run the model, of all answers together.
    """

    answers: int
    failures: int
    rows: int
    predict_s: float
