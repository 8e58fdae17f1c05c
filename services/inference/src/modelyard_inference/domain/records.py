"""What is written of each request that is answered: a block, the contract's, which holds what all rows share once.

It is written while the caller waits, and sent to drift as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_contracts.prediction_blocks_v1 import PredictionBlock as Block

__all__ = ["Block", "Totals"]


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
