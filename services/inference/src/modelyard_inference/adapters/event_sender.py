"""Sends the spool to drift: at least once, in the order of writing, at once while drift is there, for ever while not.

Blocks are sent as they lie in the file, without a look at any: drift checks their sums, and what they say. What it will
never take is read one by one and halved: by blocks, and then, as JSON, by the rows of one, until those that are wrong
are found; they go to a file of their own and are counted. One bad record does not hold up those behind it. A drift of
an older version, which takes no blocks, gets all rows as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, groupby, islice
from typing import Protocol, TypeVar

from modelyard_client.drift import TakesNoBlocks
from modelyard_common.errors import Conflict, Invalid, ModelyardError, TooLarge
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal
from modelyard_common.tracing import Value, is_recording, span
from modelyard_contracts.events_v1 import MAX_EVENTS, EventBatch, EventReceipt, PredictionEvent
from modelyard_contracts.frames import framed
from pydantic import ValidationError

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.dead_letters import DeadLetters
from modelyard_inference.adapters.payload_spool import Blocks, PayloadSpool
from modelyard_inference.adapters.spool_blocks import traceparent_of, unpack
from modelyard_inference.adapters.spool_sender import SpoolSender

__all__ = ["EventSender", "EventTaker"]

T = TypeVar("T")
_log = get_logger(__name__)
_ROWS = MAX_EVENTS
"""Of one request. A request costs both sides as much as some hundred rows; drift commits them together."""
_BYTES = 768 * 1024
_EVENTS = 500
"""Of one request as JSON, and of one that points to traces: a span has no room for more links."""
_EVENTS_FOR_S = 60.0
"""How long a drift that takes no blocks gets JSON before it is asked again: it may have been brought up to date."""
_LONGEST_PAUSE_S = 5.0


class EventTaker(Protocol):
    """Takes batches: drift's client."""

    def send_blocks(self, source: str, blocks: bytes) -> EventReceipt:
        """Hand over prediction events in frames of blocks. Raise TakesNoBlocks where they are not known."""

    def send_events(self, batch: EventBatch) -> EventReceipt:
        """Hand over prediction events."""


class _Spooled(PredictionEvent):
    """An event with what stays here: the trace of its prediction (drift takes that of the batch), and its wait."""

    traceparent: str | None = None
    queue_ms: float = 0.0


def _traced(count: int, traceparents: Callable[[], Iterable[str | None]]) -> AbstractContextManager[object]:
    """Return the span of a batch. It belongs to none of its predictions, and points to each that is recorded.

    Args:
        count: of its rows.
        traceparents: of its predictions; asked for only where traces are recorded.
    """
    links = tuple(dict.fromkeys(filter(None, traceparents()))) if is_recording() else ()
    if not links:
        return nullcontext()
    attributes: dict[str, Value] = {"messaging.operation.name": "send", "messaging.batch.message_count": count}
    return span("send predictions", kind="producer", links=links, attributes=attributes)


def _by_halves(
    items: Sequence[T], send: Callable[[Sequence[T]], None], refused: Callable[[T, ModelyardError], None]
) -> None:
    """Send all, or by halves what of them is taken; ``refused`` gets each that is not, and why."""
    try:
        send(items)
    except (Invalid, TooLarge, Conflict) as exc:
        if len(items) == 1:
            refused(items[0], exc)
            return
        half = len(items) // 2
        _by_halves(items[:half], send, refused)
        _by_halves(items[half:], send, refused)


class EventSender(SpoolSender):
    """Empties the spool.

    Args:
        source: the name of this server.
        linger_s: how long to gather before sending.
        flush_s: how long to send on after the stop.
        monotonic: the clock.
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
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("drift", longest_pause_s=_LONGEST_PAUSE_S, flush_s=flush_s)
        self._spool = spool
        self._drift = drift
        self._dead = dead
        self._source = source
        self._linger_s = linger_s
        self._monotonic = monotonic
        self._events_until = 0.0
        self._more = False

    def close(self) -> None:
        """Do nothing: drift's client belongs to whoever made it."""

    def send_once(self) -> bool:
        """Send one batch; return whether there was one.

        Raises:
            ModelyardError: drift cannot take it now, or the disk not give it; it stays in the spool.
        """
        if self._sent_as_written():
            return True
        batch = self._spool.read_blocks(_EVENTS if is_recording() else _ROWS, _BYTES)
        self._more = batch is not None and batch.more
        if batch is None:
            return False
        self._send(batch)
        self._spool.sent(batch.after)
        self._back()
        return True

    def _sent_as_written(self) -> bool:
        """Send what comes next as it lies there; False, with nothing sent, where it has to be looked at first."""
        if is_recording() or self._monotonic() < self._events_until:
            return False
        written = self._spool.read_written(_ROWS, _BYTES)
        if written is None:
            return False
        try:
            receipt = self._drift.send_blocks(self._source, written.frames)
        except TakesNoBlocks as exc:
            self._send_json_for_now(exc)
            return False
        except (Invalid, TooLarge, Conflict):
            return False  # which of them, is found out block by block
        self._more = written.more
        self._taken(receipt)
        self._spool.sent(written.after)
        self._back()
        return True

    def _send(self, batch: Blocks) -> None:
        for are_blocks, group in groupby(batch.payloads, key=lambda payload: payload[1] > 0):
            payloads = list(group)
            if are_blocks and self._monotonic() >= self._events_until:
                _by_halves(payloads, self._send_blocks, lambda alone, _: self._send_rows([alone[0]]))
            else:
                self._send_rows(payload for payload, _ in payloads)

    def _send_blocks(self, blocks: Sequence[tuple[bytes, int]]) -> None:
        payloads = [payload for payload, _ in blocks]
        try:
            with _traced(sum(rows for _, rows in blocks), lambda: map(traceparent_of, payloads)):
                self._taken(self._drift.send_blocks(self._source, framed(payloads)))
        except TakesNoBlocks as exc:
            self._send_json_for_now(exc)
            self._send_rows(payloads)

    def _send_json_for_now(self, why: TakesNoBlocks) -> None:
        _log.warning("drift.takes_no_blocks", reason=why.message, again_in_s=_EVENTS_FOR_S)
        self._events_until = self._monotonic() + _EVENTS_FOR_S

    def _send_rows(self, payloads: Iterable[bytes]) -> None:
        """Send what is in payloads row by row, as JSON."""
        rows = chain.from_iterable(map(unpack, payloads))
        while some := list(islice(rows, _EVENTS)):
            self._send_events(some)

    def _send_events(self, rows: list[bytes]) -> None:
        sound: list[tuple[bytes, _Spooled]] = []
        for payload in rows:
            try:
                sound.append((payload, _Spooled.model_validate_json(payload)))
            except ValidationError as exc:
                self._dead.put(payload, f"{exc.error_count()} fields are not as the contract has them")
        if sound:
            _by_halves(sound, self._post_events, lambda alone, exc: self._dead.put(alone[0], exc.message))

    def _post_events(self, sound: Sequence[tuple[bytes, _Spooled]]) -> None:
        events = tuple(event for _, event in sound)
        with _traced(len(events), lambda: (event.traceparent for event in events)):
            self._taken(self._drift.send_events(EventBatch(source=self._source, events=events)))

    @staticmethod
    def _taken(receipt: EventReceipt) -> None:
        metrics.EVENTS_SENT.inc(receipt.accepted + receipt.duplicates)
        if receipt.refused:
            metrics.EVENTS_REFUSED.inc(receipt.refused)
            _log.warning("events.refused_by_drift", count=receipt.refused)

    def _gather(self, stop: StopSignal) -> None:
        # What has more behind it is sent on at once. Else that would mean a request for every few rows.
        if not self._more:
            stop.wait(self._linger_s)
