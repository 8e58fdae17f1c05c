"""Close a window: score it, see which episodes it opens or lengthens, decide about each, keep everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from modelyard_common.tracing import Kind, Value, span
from modelyard_contracts.durations import duration_s
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.metrics_v1 import METRICS_BY_TASK
from modelyard_stats.baseline import Baseline
from modelyard_stats.scoring import WindowScore, score_window

from modelyard_drift.domain.episodes import CALM_WINDOWS, Episode, Glance, Sighting, close_all, follow, has_subsided
from modelyard_drift.domain.performance import Performance, beyond, by_version
from modelyard_drift.domain.policy import Decision, Limits, decide
from modelyard_drift.domain.severity import (
    ORDER,
    PERFORMANCE_PREFIX,
    Severity,
    drifted_features,
    quality_faults,
    severity_of,
)
from modelyard_drift.domain.windows import Closed
from modelyard_drift.usecases.ports import Decided, Policy, StoredWindow, Writer
from modelyard_drift.usecases.views import window_view

__all__ = ["CloseWindow", "failing_metrics", "measured"]

_DEFAULT_COOLDOWN = timedelta(days=1)
_DEFAULT_PER_WEEK = 7


@dataclass(frozen=True, slots=True)
class CloseWindow:
    """Judges windows, within the transaction that closes them.

    Attributes:
        commands_on: False: decisions are recorded, and nothing is sent.
        new_id: prefix to a new id.
    """

    commands_on: bool
    new_id: Callable[[str], str]

    def __call__(self, store: Writer, policy: Policy, closed: Closed, baseline: Baseline, watermark: datetime) -> int:
        """Keep the window and all that follows from it; return how many labels are missing by now."""
        attributes: dict[str, Value] = {"modelyard.model": policy.model, "modelyard.rows": closed.window.rows}
        with span("close window", attributes=attributes) as its:
            severity, missing = self._close(store, policy, closed, baseline, watermark)
            its.set("modelyard.severity", severity)
        return missing

    def _close(
        self, store: Writer, policy: Policy, closed: Closed, baseline: Baseline, watermark: datetime
    ) -> tuple[Severity, int]:
        window, spec = closed.window, policy.spec
        thresholds = spec.monitor.drift
        score = score_window(
            baseline,
            window.counters,
            psi_threshold=thresholds.psi,
            significance=thresholds.significance,
            min_rows=thresholds.min_rows,
        )
        if not baseline.features:
            score = WindowScore(sufficient=False, features=(), prediction=None)
        faults = quality_faults(
            baseline, window.counters, max_missing=spec.data.checks.max_missing, required=_required(spec)
        )
        performance = measured(store, policy, window.first_seq, window.last_seq)
        severity = severity_of(score)
        drifted = drifted_features(score)
        failing = failing_metrics(spec, performance)
        if failing:
            severity = "critical"
        view = window_view(policy.model, closed, score, faults=faults, severity=severity, performance=performance)
        labelled = max((entry.rows for entry in performance), default=0)
        kept = StoredWindow(
            index=window.index,
            first_seq=window.first_seq,
            last_seq=window.last_seq,
            rows=window.rows,
            view=view,
            counters=window.counters.to_document(),
            labelled=labelled,
        )
        store.save_window(policy.model, kept)
        if closed.by != "promotion":
            self.follow_up(store, policy, kept, drifted | failing, watermark)
            self.end_subsided(store, policy, watermark)
        delay = timedelta(seconds=spec.label_delay_s)
        return severity, store.unlabelled(policy.model, up_to=watermark - delay)

    def follow_up(
        self, store: Writer, policy: Policy, window: StoredWindow, drifted: dict[str, Severity], watermark: datetime
    ) -> None:
        """Open and lengthen episodes, and decide about those that this window touched."""
        seen = Sighting(
            window=window.view.id,
            first_row=window.view.first_row,
            last_row=window.view.first_row + window.rows - 1,
            at=watermark,
            reference=window.view.reference,
        )
        open_episodes = store.open_episodes(policy.model)
        plain = {name: severity for name, severity in drifted.items() if not name.startswith(PERFORMANCE_PREFIX)}
        poor = {name: severity for name, severity in drifted.items() if name.startswith(PERFORMANCE_PREFIX)}
        touched: list[Episode] = []
        for part, performance in ((plain, False), (poor, True)):
            if part:
                mine = [episode for episode in open_episodes if _is_performance(episode) == performance]
                _, some = follow(mine, part, seen, new_id=self.new_id("episode"))
                touched += some
        for episode in sorted(touched, key=lambda one: -ORDER.index(one.severity)):
            self._decide(store, policy, episode, window.view.quality, watermark)

    def end_subsided(self, store: Writer, policy: Policy, watermark: datetime) -> None:
        """Close the open episodes whose names have been calm for some windows."""
        open_episodes = store.open_episodes(policy.model)
        if not open_episodes:
            return
        watches_performance = any(_is_performance(episode) for episode in open_episodes)
        newest = [
            _glance(store, policy, window, with_performance=watches_performance)
            for window in store.windows(policy.model, before=None, limit=CALM_WINDOWS)
        ]
        over = [episode for episode in open_episodes if has_subsided(episode, newest)]
        for episode in close_all(over, at=watermark, by=f"subsided: calm for {CALM_WINDOWS} windows"):
            store.save_episode(policy.model, episode)

    def _decide(
        self, store: Writer, policy: Policy, episode: Episode, faults: Sequence[str], watermark: datetime
    ) -> None:
        performance = _is_performance(episode)
        if episode.commanded and not performance:
            # The change was learned from once. A model below its floor is tried again with every window of new labels.
            store.save_episode(policy.model, episode)
            return
        verdict = decide(
            episode.severity,
            self._limits(policy.spec, performance=performance),
            now=watermark,
            commands=store.command_times(policy.model),
            faults=faults,
        )
        store.save_episode(policy.model, replace(episode, commanded=episode.commanded or verdict.kind == "command"))
        log = store.log(policy.model)
        label_seq = log.label_seq if log is not None else 0
        if _was_decided(store, episode, verdict, label_seq):
            return
        decided = Decided(
            id=self.new_id("decision"),
            model=policy.model,
            episode=episode.id,
            at_event_time=watermark,
            decision=verdict.kind,
            trigger="performance" if performance else "drift",
            reason=verdict.reason,
            label_seq=label_seq,
            command="pending" if verdict.kind == "command" else "none",
        )
        kind: Kind = "producer" if verdict.kind == "command" else "internal"
        with span("decide retrain", kind=kind, attributes=_told(decided)) as its:
            store.save_decision(replace(decided, traceparent=its.traceparent))

    def _limits(self, spec: ManagedModelSpec, *, performance: bool) -> Limits:
        drift = next((trigger.drift for trigger in spec.train.when if trigger.drift is not None), None)
        at_least: Severity | None = drift.at_least if drift is not None else None
        if performance:
            at_least = "critical"
        return Limits(
            at_least=at_least,
            cooldown=timedelta(seconds=duration_s(drift.cooldown)) if drift is not None else _DEFAULT_COOLDOWN,
            max_per_week=drift.max_per_week if drift is not None else _DEFAULT_PER_WEEK,
            paused=spec.paused,
            commands_on=self.commands_on,
        )


def measured(store: Writer, policy: Policy, first_seq: int, last_seq: int) -> list[Performance]:
    """Return the watched metrics of a part of the log, over those of its rows that are labelled."""
    spec = policy.spec
    names: list[str] = [spec.monitor.performance.metric] if spec.monitor.performance is not None else []
    names += [trigger.performance.metric for trigger in spec.train.when if trigger.performance is not None]
    if not names:
        names = [METRICS_BY_TASK[spec.task][0]] if METRICS_BY_TASK.get(spec.task) else []
    rows = store.answered(policy.model, first_seq=first_seq, last_seq=last_seq) if names else []
    if not rows:
        return []
    positive = spec.data.positive_class
    return [entry for name in dict.fromkeys(names) for entry in by_version(name, rows, positive=positive)]


def failing_metrics(spec: ManagedModelSpec, performance: Sequence[Performance]) -> dict[str, Severity]:
    """Return the metrics beyond the floors of ``train.when``, over all rows and with enough labels."""
    found: dict[str, Severity] = {}
    for trigger in spec.train.when:
        rule = trigger.performance
        if rule is None:
            continue
        for entry in performance:
            overall = entry.version == "" and entry.metric == rule.metric
            enough = entry.rows >= spec.monitor.drift.min_rows
            if overall and enough and beyond(entry.value, below=rule.below, above=rule.above):
                found[f"{PERFORMANCE_PREFIX}{rule.metric}"] = "critical"
    return found


def _glance(store: Writer, policy: Policy, window: StoredWindow, *, with_performance: bool) -> Glance:
    """Return what a closed window says about features, the prediction and, if asked, the watched metrics."""
    view = window.view
    scored = [] if view.state != "scored" else [*view.features, *([view.prediction] if view.prediction else [])]
    judged = {part.feature for part in scored}
    crossed = {part.feature for part in scored if part.drifted}
    if with_performance:
        performance = measured(store, policy, window.first_seq, window.last_seq)
        judged |= {
            f"{PERFORMANCE_PREFIX}{entry.metric}"
            for entry in performance
            if entry.version == "" and entry.rows >= policy.spec.monitor.drift.min_rows
        }
        crossed |= set(failing_metrics(policy.spec, performance))
    return Glance(view.first_row, frozenset(judged), frozenset(crossed))


def _was_decided(store: Writer, episode: Episode, verdict: Decision, label_seq: int) -> bool:
    """Return whether a decision about an episode says nothing new.

    A command does if labels have come since the last one. Of windows that waited and are judged together the first
    commands: its run learns from the labels of all of them.
    """
    if verdict.kind == "command":
        command = store.last_decision(episode.id, "command")
        return command is not None and command.label_seq == label_seq
    last = store.last_decision(episode.id)
    return last is not None and last.decision == verdict.kind


def _told(decided: Decided) -> dict[str, str]:
    return {
        "modelyard.model": decided.model,
        "modelyard.episode": decided.episode,
        "modelyard.decision": decided.decision,
        "modelyard.trigger": decided.trigger,
    }


def _required(spec: ManagedModelSpec) -> dict[str, bool]:
    return {name: feature.required for name, feature in spec.data.features.items()}


def _is_performance(episode: Episode) -> bool:
    return any(feature.startswith(PERFORMANCE_PREFIX) for feature in episode.features)
