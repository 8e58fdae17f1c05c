"""Take labels: the same again is a no-op, another value needs a higher revision, and those that come early wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelyard_common.errors import Conflict, Invalid, NotFound, Overloaded
from modelyard_contracts.drift_v1 import Label, LabelBatch, LabelReceipt
from modelyard_contracts.problem import FieldError

from modelyard_drift.usecases.ports import KeptLabel, LogState, Transactions, Writer

__all__ = ["IngestLabels"]


@dataclass(frozen=True, slots=True)
class IngestLabels:
    """Appends labels to the log."""

    transactions: Transactions
    wake: Callable[[], None]
    max_waiting: int

    def __call__(self, model: str, batch: LabelBatch) -> LabelReceipt:
        """Return what became of a batch; all that was accepted is durable then.

        Raises:
            Invalid: a label without a value, or one that is no number for a model that answers in numbers.
            NotFound: no such model was ever seen.
            Overloaded: too many labels wait for their predictions.
            Conflict: a label has another value under the same or a lower revision. Nothing of the batch is kept.
        """
        empty = [place for place, label in enumerate(batch.labels) if label.value is None]
        if empty:
            errors = tuple(FieldError(path=f"labels[{place}].value", message="is required") for place in empty[:20])
            raise Invalid("a label without a value says nothing; leave it out", errors=errors)
        with self.transactions.write() as store:
            policy = store.policy(model)
            if policy is None and store.log(model) is None:
                raise NotFound(f"drift knows no model {model!r}")
            if policy is not None and policy.spec.task == "regression":
                _require_numbers(batch.labels)
            log = store.lock_log(model)
            fresh = _fresh(store, model, batch.labels)
            log, waiting = self._append(store, model, log, fresh)
        self.wake()
        return LabelReceipt(
            accepted=len(fresh), unchanged=len(batch.labels) - len(fresh), waiting=waiting, last_seq=log.label_seq
        )

    def _append(self, store: Writer, model: str, log: LogState, fresh: Sequence[KeptLabel]) -> tuple[LogState, int]:
        if not fresh:
            return log, 0
        here = store.answered_ids(model, [label.prediction_id for label in fresh])
        waiting = sum(1 for label in fresh if label.prediction_id not in here)
        if waiting and log.waiting + waiting > self.max_waiting:
            raise Overloaded(
                f"{log.waiting} of at most {self.max_waiting} labels wait for their predictions; send predictions first"
            )
        store.append_labels(model, log.seq + 1, [(label, label.prediction_id in here) for label in fresh])
        seq = log.seq + len(fresh)
        joined = log.labels + len(fresh) - waiting
        log = replace(log, seq=seq, label_seq=seq, labels=joined, waiting=log.waiting + waiting)
        store.save_log(model, log)
        return log, waiting


def _require_numbers(labels: Sequence[Label]) -> None:
    """Raise Invalid, naming the labels that are no numbers."""
    errors = tuple(
        FieldError(path=f"labels[{place}].value", message="must be a number: the model's task is regression")
        for place, label in enumerate(labels)
        if isinstance(label.value, str | bool)
    )
    if errors:
        raise Invalid(f"{len(errors)} labels are no numbers; nothing of this batch was kept", errors=errors[:20])


def _fresh(store: Writer, model: str, labels: Sequence[Label]) -> list[KeptLabel]:
    """Return the labels that are new; those that are known change nothing. Raise Conflict on a contradiction."""
    kept = store.kept_labels(model, [_row_id(label.prediction_id) for label in labels])
    fresh: list[KeptLabel] = []
    conflicts: list[FieldError] = []
    for place, label in enumerate(labels):
        row = _row_id(label.prediction_id)
        before = kept.get(row)
        if before is not None and _same(before.value, label.value):
            continue
        if before is not None and label.revision <= before.revision:
            message = f"{row} has another label of revision {before.revision}; send a higher revision to correct it"
            conflicts.append(FieldError(path=f"labels[{place}]", message=message))
            continue
        fresh.append(KeptLabel(row, label.value, label.revision))
        kept[row] = fresh[-1]
    if conflicts:
        raise Conflict(
            f"{len(conflicts)} labels contradict what is known; nothing of this batch was kept",
            errors=tuple(conflicts[:20]),
        )
    return fresh


def _row_id(prediction_id: str) -> str:
    """Return the id of a row; a prediction without a row number means its first."""
    return prediction_id if "/" in prediction_id else f"{prediction_id}/0"


def _same(first: Any, second: Any) -> bool:
    """Return whether two labels are the same: 1 and 1.0 are, 1 and "1" are not."""
    return bool(first == second) and isinstance(first, str) == isinstance(second, str)
