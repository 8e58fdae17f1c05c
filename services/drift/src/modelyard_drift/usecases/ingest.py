"""Take prediction events into the log: deduplicated by (id, role), committed before they are acknowledged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from modelyard_common.clock import Clock
from modelyard_contracts.events_v1 import EventBatch, EventReceipt, PredictionEvent

from modelyard_drift.usecases.ports import Transactions, Writer

__all__ = ["MAX_AHEAD", "Ingest"]

MAX_AHEAD = timedelta(minutes=10)
"""How far ahead of the clock an event time may be: one from next year would push the watermark there for good."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """Appends batches to the log."""

    transactions: Transactions
    clock: Clock
    wake: Callable[[], None]

    def __call__(self, batch: EventBatch) -> EventReceipt:
        """Return what became of a batch; all that was accepted is durable then."""
        by_model: dict[str, list[PredictionEvent]] = defaultdict(list)
        for event in batch.events:
            by_model[event.model].append(event)
        accepted = refused = last = 0
        now = self.clock.now()
        with self.transactions.write() as store:
            for model in sorted(by_model):
                good = self._in_time(store, model, by_model[model], now)
                refused += len(by_model[model]) - len(good)
                taken, seq = _append(store, model, good)
                accepted += taken
                last = max(last, seq)
        self.wake()
        duplicates = len(batch.events) - accepted - refused
        return EventReceipt(accepted=accepted, duplicates=duplicates, refused=refused, last_seq=last)

    @staticmethod
    def _in_time(
        store: Writer, model: str, events: Sequence[PredictionEvent], now: datetime
    ) -> Sequence[PredictionEvent]:
        policy = store.policy(model)
        if policy is None or policy.spec.monitor.replay:
            return events
        return [event for event in events if event.event_time <= now + MAX_AHEAD]


def _append(store: Writer, model: str, events: Sequence[PredictionEvent]) -> tuple[int, int]:
    log = store.lock_log(model)
    known = store.known_events(model, [event.id for event in events])
    fresh: list[PredictionEvent] = []
    for event in events:
        key = (event.id, event.role)
        if key not in known:
            known.add(key)
            fresh.append(event)
    if not fresh:
        return 0, log.seq
    store.append_events(model, log.seq + 1, fresh)
    seq = log.seq + len(fresh)
    log = replace(log, seq=seq, prediction_seq=seq)
    answers = [event.id for event in fresh if event.role != "shadow" and event.error is None]
    if log.waiting:
        joined = store.join_waiting(model, answers, log.seq + 1)
        if joined:
            seq = log.seq + joined
            log = replace(log, seq=seq, label_seq=seq, labels=log.labels + joined, waiting=log.waiting - joined)
    store.save_log(model, replace(log, requests=log.requests + len(answers)))
    return len(fresh), log.seq
