"""Constructs the payload log: the spool, those who send what is in it, and what sends what former workers left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard_client import DriftClient
from modelyard_common.tasks import Task

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.event_sender import DeadLetters, EventSender
from modelyard_inference.adapters.former_spools import FormerSpools, spool_folder
from modelyard_inference.adapters.payload_spool import PayloadSpool
from modelyard_inference.settings import InferenceSettings

__all__ = ["PayloadLog", "payload_log"]

_FORMER_S = 5.0
"""Between two looks for spools of workers that are no more: their owners may still be ending."""


@dataclass(frozen=True, slots=True)
class PayloadLog:
    """Where records go, what runs for them, and how that is."""

    spool: PayloadSpool
    tasks: Sequence[Task]
    checks: Mapping[str, Callable[[], str | None]]
    limit_bytes: int

    def show(self) -> None:
        """Show how full it is."""
        state = self.spool.state
        metrics.show_spool(state.size_bytes, state.pending_bytes, self.limit_bytes)


def payload_log(settings: InferenceSettings, home: Path, *, slot: int, size: int, drift: DriftClient) -> PayloadLog:
    """Return the log of one of ``size`` workers. Raise Conflict when another process has its spool."""

    def open_spool(folder: Path) -> PayloadSpool:
        return PayloadSpool(folder, max_bytes=settings.spool_max_bytes, segment_bytes=settings.spool_segment_bytes)

    def sender_of(spool: PayloadSpool) -> EventSender:
        return EventSender(
            spool,
            drift,
            DeadLetters(spool.root / "refused.jsonl"),
            source=settings.instance,
            linger_s=settings.spool_linger_s,
            flush_s=settings.flush_s,
        )

    spool = open_spool(spool_folder(home, slot))
    sender = sender_of(spool)
    spool.appended = sender.wake
    tasks = [
        Task("spool-sync", lambda _: spool.sync(), settings.spool_sync_s),
        Task("event-sender", sender.run),
    ]
    if slot == 0:
        former = FormerSpools(home, size, open_spool, lambda spool: [sender_of(spool)])
        tasks.append(Task("former-spools", former.send, _FORMER_S))
    return PayloadLog(spool, tasks, {"spool": spool.check, "drift": sender.check}, settings.spool_max_bytes)
