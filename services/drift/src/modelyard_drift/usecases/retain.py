"""Forget the oldest rows of the log; windows, episodes and decisions stay."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_common.logs import get_logger

from modelyard_drift.usecases.ports import Transactions

__all__ = ["Retain"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retain:
    """Keeps the newest rows a model."""

    transactions: Transactions
    keep_rows: int

    def __call__(self) -> None:
        """Delete what is beyond ``keep_rows`` and processed."""
        with self.transactions.read() as store:
            models = [policy.model for policy in store.policies()]
        for model in models:
            with self.transactions.write() as writer:
                if gone := writer.forget(model, keep_rows=self.keep_rows):
                    _log.info("log.trimmed", model=model, rows=gone)
