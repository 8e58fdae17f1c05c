"""Sends the spool to drift: at least once, in the order of writing, at once while drift is there, for ever while not.

A batch that drift will never take is halved until the records that are wrong are found; they go to a file of their
own and are counted. One bad record does not hold up those behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from modelyard_common.errors import Conflict, Invalid, TooLarge
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal
from modelyard_common.tracing import Value, span
from modelyard_contracts.events_v1 import EventBatch, EventReceipt, PredictionEvent
from prometheus_client import Counter
from pydantic import ValidationError

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.payload_spool import Batch, PayloadSpool
from modelyard_inference.adapters.spool_sender import SpoolSender

__all__ = ["DeadLetters", "EventSender", "EventTaker"]

_log = get_logger(__name__)
_BATCH = 500
_FULL = _BATCH // 2
"""Records that lie in one block are sent together, so that a batch may end before it is full."""
_LONGEST_PAUSE_S = 5.0


class EventTaker(Protocol):
    """Takes batches: drift's client."""

    def send_events(self, batch: EventBatch) -> EventReceipt:
        """Hand over prediction events."""


class _Spooled(PredictionEvent):
    """An event with what stays here: the trace of its prediction (drift takes that of the batch), and its wait."""

    traceparent: str | None = None
    queue_ms: float = 0.0


def _traced(events: Sequence[_Spooled]) -> AbstractContextManager[object]:
    """Return the span of a batch. It belongs to none of its predictions, and points to each that is recorded."""
    links = tuple(dict.fromkeys(event.traceparent for event in events if event.traceparent))
    if not links:
        return nullcontext()
    attributes: dict[str, Value] = {"messaging.operation.name": "send", "messaging.batch.message_count": len(events)}
    return span("send predictions", kind="producer", links=links, attributes=attributes)


class DeadLetters:
    """The file of what somebody refused; bounded, then only counted."""

    def __init__(self, path: Path, max_bytes: int = 16 * 1024**2, *, refused: Counter = metrics.EVENTS_REFUSED) -> None:
        self._path = path
        self._refused = refused
        self._max_bytes = max_bytes

    def put(self, payload: bytes, reason: str) -> None:
        """Set one record aside."""
        self._refused.inc()
        _log.error("event.refused", reason=reason)
        try:
            if not self._path.exists() or self._path.stat().st_size + len(payload) < self._max_bytes:
                with self._path.open("ab") as handle:
                    handle.write(payload + b"\n")
        except OSError as exc:
            _log.error("dead_letters.not_written", kind=type(exc).__name__)


class EventSender(SpoolSender):
    """Empties the spool.

    Args:
        source: the name of this server.
        linger_s: how long to gather before sending.
        flush_s: how long to send on after the stop.
    """

    def __init__(
        self,
        spool: PayloadSpool,
        drift: EventTaker,
        dead: DeadLetters,
        *,
        source: str,
        linger_s: float = 0.02,
        flush_s: float = 3.0,
    ) -> None:
        super().__init__("drift", longest_pause_s=_LONGEST_PAUSE_S, flush_s=flush_s)
        self._spool = spool
        self._drift = drift
        self._dead = dead
        self._source = source
        self._linger_s = linger_s
        self._full = False

    def close(self) -> None:
        """Do nothing: drift's client belongs to whoever made it."""

    def send_once(self) -> bool:
        """Send one batch; return whether there was one.

        Raises:
            ModelyardError: drift cannot take it now; it stays in the spool.
        """
        batch = self._spool.read(_BATCH)
        self._full = batch is not None and len(batch.payloads) >= _FULL
        if batch is None:
            return False
        self._send(batch)
        self._spool.sent(batch.after)
        self._back()
        return True

    def _send(self, batch: Batch) -> None:
        events: list[_Spooled] = []
        payloads: list[bytes] = []
        for payload in batch.payloads:
            try:
                events.append(_Spooled.model_validate_json(payload))
                payloads.append(payload)
            except ValidationError as exc:
                self._dead.put(payload, f"{exc.error_count()} fields are not as the contract has them")
        self._hand_over(events, payloads)

    def _hand_over(self, events: list[_Spooled], payloads: list[bytes]) -> None:
        if not events:
            return
        try:
            with _traced(events):
                receipt = self._drift.send_events(EventBatch(source=self._source, events=tuple(events)))
        except (Invalid, TooLarge, Conflict) as exc:
            if len(events) == 1:
                self._dead.put(payloads[0], exc.message)
                return
            half = len(events) // 2
            self._hand_over(events[:half], payloads[:half])
            self._hand_over(events[half:], payloads[half:])
            return
        metrics.EVENTS_SENT.inc(receipt.accepted + receipt.duplicates)
        if receipt.refused:
            metrics.EVENTS_REFUSED.inc(receipt.refused)
            _log.warning("events.refused_by_drift", count=receipt.refused)

    def _gather(self, stop: StopSignal) -> None:
        # A batch that was full has left more behind it. After any other, to send on at once would mean a request
        # for every few records.
        if not self._full:
            stop.wait(self._linger_s)
