"""Move the log through the windows: each answered row is counted once, in the order of ingest.

Ingest only appends; this reads on from a cursor, and cursor, counters, windows, episodes and decisions change in one
transaction, so that a killed process counts nothing twice and forgets nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal
from modelyard_contracts.durations import duration_s
from modelyard_stats.baseline import Baseline

from modelyard_drift.domain.episodes import close_all
from modelyard_drift.domain.windows import Closed, Row, WindowRule, cut, feed, first_window
from modelyard_drift.usecases.close_window import CloseWindow
from modelyard_drift.usecases.fetch_baseline import FetchBaseline
from modelyard_drift.usecases.ports import Entry, Policy, Progress, Transactions, Writer

__all__ = ["Process"]

_log = get_logger(__name__)


@dataclass(slots=True)
class Process:
    """One turn takes all models as far as their logs go.

    Attributes:
        chunk_rows: rows that one transaction moves.
        notes: model to what keeps it back, for status.
    """

    transactions: Transactions
    fetch_baseline: FetchBaseline
    close_window: CloseWindow
    chunk_rows: int
    notes: dict[str, str] = field(default_factory=dict)

    def __call__(self, stop: StopSignal) -> None:
        """Process what there is; a model that cannot go on keeps no other back."""
        with self.transactions.read() as store:
            behind = store.backlog()
        for model in behind:
            try:
                while not stop.is_set() and self._advance(model):
                    pass
            except ModelyardError as exc:
                self._hold(model, str(exc))
            except Exception as exc:
                _log.error("processing.failed", error=exc, model=model)
                self._hold(model, f"processing failed ({type(exc).__name__}); the log of drift says where")

    def _hold(self, model: str, note: str) -> None:
        if self.notes.get(model) != note:
            _log.warning("processing.waits", model=model, reason=note)
        self.notes[model] = note

    def _advance(self, model: str) -> bool:
        """Move one chunk; return whether there may be more. Raise Unavailable when something is missing."""
        with self.transactions.read() as store:
            policy = store.policy(model)
            before = store.progress(model)
            entries = store.entries(model, after=before.processed_seq, limit=self.chunk_rows)
        if policy is None:
            raise Unavailable("the registry has not told the policy of this model yet")
        segment, reference = _segment(before, entries)
        if not segment:
            self.notes.pop(model, None)
            return False
        baseline = self.fetch_baseline(model, reference) if reference is not None else None
        with self.transactions.write() as store:
            progress = store.lock_progress(model)
            if progress.processed_seq != before.processed_seq:
                return True  # another process of this service was faster
            if baseline is not None and reference is not None:
                progress = self._count(store, policy, progress, segment, reference, baseline)
            store.save_progress(model, replace(progress, processed_seq=segment[-1].seq))
        self.notes.pop(model, None)
        return True

    def _count(
        self,
        store: Writer,
        policy: Policy,
        progress: Progress,
        segment: Sequence[Entry],
        reference: str,
        baseline: Baseline,
    ) -> Progress:
        progress = replace(progress, revision=max(progress.revision, *(entry.revision for entry in segment)))
        if progress.window is None or progress.reference != reference:
            progress = self._cut(store, policy, progress, reference, baseline)
        assert progress.window is not None  # noqa: S101  # cut opens one
        rows = [_row(entry) for entry in segment if entry.role != "shadow" and not entry.error]
        window, closed = feed(progress.window, rows, baseline, _rule(policy))
        for one in closed:
            watermark = _watermark(progress, segment, one.window.last_seq)
            missing = self.close_window(store, policy, one, baseline, watermark)
            progress = replace(progress, labels_missing=missing)
        return replace(progress, window=window, watermark=_watermark(progress, segment, segment[-1].seq))

    def _cut(self, store: Writer, policy: Policy, progress: Progress, reference: str, baseline: Baseline) -> Progress:
        """Begin to count on another champion's edges: its promotion ends the open window and all episodes."""
        closed: Closed | None = None
        window = progress.window
        if window is None:
            fresh = first_window(reference, baseline)
        else:
            fresh, closed = cut(window, reference, baseline)
        if closed is not None and progress.watermark is not None:
            old = self.fetch_baseline.kept(store, closed.window.reference)
            self.close_window(store, policy, closed, old, progress.watermark)
        if progress.watermark is not None:
            ended = close_all(store.open_episodes(policy.model), at=progress.watermark, by=f"promotion of {reference}")
            for episode in ended:
                store.save_episode(policy.model, episode)
        return replace(progress, reference=reference, window=fresh)


def _segment(progress: Progress, entries: Sequence[Entry]) -> tuple[Sequence[Entry], str | None]:
    """Return the entries up to the next promotion, and the reference that they are counted on.

    Only a routing revision newer than all before can promote: rows that come late change nothing.
    """
    reference, revision = progress.reference, progress.revision
    for place, entry in enumerate(entries):
        if entry.revision <= revision:
            continue
        revision = entry.revision
        if entry.champion != reference:
            if place > 0:
                return entries[:place], reference
            reference = entry.champion
    return entries, reference


def _watermark(progress: Progress, segment: Sequence[Entry], until: int) -> datetime:
    """Return the newest event time up to a row: a window is judged as of its last row, however far the log has come.

    Law: how a log is cut into segments changes no watermark.
    """
    times = [entry.event_time for entry in segment if entry.seq <= until]
    known = [] if progress.watermark is None else [progress.watermark]
    return max([*times, *known])


def _row(entry: Entry) -> Row:
    return Row(
        seq=entry.seq,
        revision=entry.revision,
        champion=entry.champion,
        event_time=entry.event_time,
        features=entry.features,
        watched=entry.prediction if entry.score is None else entry.score,
        sampled=entry.sampled,
    )


def _rule(policy: Policy) -> WindowRule:
    window = policy.spec.monitor.window
    return WindowRule(
        rows=window.rows, span=None if window.for_ is None else timedelta(seconds=duration_s(window.for_))
    )
