"""Constructs the payload log: the spool, those who send what is in it, and what sends what former workers left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard_client import DriftClient
from modelyard_common.tasks import Task

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.cloud_events import Place
from modelyard_inference.adapters.dead_letters import DeadLetters
from modelyard_inference.adapters.event_sender import EventSender
from modelyard_inference.adapters.former_spools import FormerSpools, spool_folder
from modelyard_inference.adapters.payload_spool import DRIFT, SINK, PayloadSpool
from modelyard_inference.adapters.sink_sender import HttpSink, SinkSender
from modelyard_inference.adapters.spool_blocks import BLOCK_ROWS
from modelyard_inference.adapters.spool_sender import SpoolSender
from modelyard_inference.settings import InferenceSettings

__all__ = ["PayloadLog", "payload_log"]

_TASKS = ("event-sender", "sink-sender")
_FORMER_S = 5.0
"""Between two looks for spools of workers that are no more: their owners may still be ending."""


@dataclass(frozen=True, slots=True)
class PayloadLog:
    """Where records go, what runs for them, and how that is."""

    spool: PayloadSpool
    tasks: Sequence[Task]
    checks: Mapping[str, Callable[[], str | None]]
    on_close: Sequence[Callable[[], None]]
    limit_bytes: int
    readers: Sequence[str]

    def show(self) -> None:
        """Show how full it is."""
        state = self.spool.state
        metrics.show_spool(state.size_bytes, state.pending_bytes, self.limit_bytes)
        if SINK in self.readers:
            metrics.SINK_PENDING.set(self.spool.pending_bytes(SINK))


def payload_log(settings: InferenceSettings, home: Path, *, slot: int, size: int, drift: DriftClient) -> PayloadLog:
    """Return the log of one of ``size`` workers. Raise Conflict when another process has its spool."""
    readers = (DRIFT,) if settings.sink_url is None else (DRIFT, SINK)

    def open_spool(folder: Path) -> PayloadSpool:
        return PayloadSpool(
            folder,
            max_bytes=settings.spool_max_bytes,
            segment_bytes=settings.spool_segment_bytes,
            readers=readers,
        )

    def senders_of(spool: PayloadSpool) -> list[SpoolSender]:
        to_drift: SpoolSender = EventSender(
            spool,
            drift,
            DeadLetters(spool.root / "refused.jsonl"),
            source=settings.instance,
            linger_s=settings.spool_linger_s,
            flush_s=settings.flush_s,
        )
        return [to_drift] if settings.sink_url is None else [to_drift, _sink_sender(settings, settings.sink_url, spool)]

    spool = open_spool(spool_folder(home, slot))
    senders = senders_of(spool)
    spool.appended = lambda: _wake(senders)
    tasks = [Task("spool-sync", lambda _: spool.sync(), settings.spool_sync_s)]
    tasks += [Task(name, sender.run) for name, sender in zip(_TASKS[: len(senders)], senders, strict=True)]
    if slot == 0:
        former = FormerSpools(home, size, open_spool, senders_of)
        tasks.append(Task("former-spools", former.send, _FORMER_S))
    return PayloadLog(
        spool,
        tasks,
        {"spool": spool.check} | {name: sender.check for name, sender in zip(readers, senders, strict=True)},
        [*(sender.close for sender in senders), spool.close],
        settings.spool_max_bytes,
        readers,
    )


def _sink_sender(settings: InferenceSettings, url: str, spool: PayloadSpool) -> SinkSender:
    sink = HttpSink(
        url,
        token_file=settings.sink_token_file,
        timeout_s=settings.sink_timeout_s,
        connections=settings.sink_connections,
    )
    return SinkSender(
        spool,
        sink,
        DeadLetters(spool.root / "refused-sink.jsonl", refused=metrics.SINK_REFUSED),
        Place(f"/modelyard/inference/{settings.instance}", settings.sink_namespace),
        most_rows=settings.max_rows + BLOCK_ROWS + 1,
        connections=settings.sink_connections,
        flush_s=settings.flush_s,
    )


def _wake(senders: Sequence[SpoolSender]) -> None:
    for sender in senders:
        sender.wake()
