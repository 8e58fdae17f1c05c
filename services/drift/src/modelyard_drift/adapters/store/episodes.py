"""Episodes, and what was decided about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from modelyard_drift.adapters.records import decision_from, decision_values, episode_from, episode_values
from modelyard_drift.adapters.store.session import Reading, Writing
from modelyard_drift.adapters.tables import DecisionRow, EpisodeRow
from modelyard_drift.domain.episodes import Episode
from modelyard_drift.usecases.ports import Decided

__all__ = ["ReadsEpisodes", "WritesEpisodes"]


class ReadsEpisodes(Reading):
    """Reads episodes and decisions."""

    def episodes(self, model: str, *, before: int | None, limit: int) -> Sequence[tuple[int, Episode]]:
        """Return (number, episode), newest first."""
        query = select(EpisodeRow).where(EpisodeRow.model == model).order_by(EpisodeRow.opened.desc()).limit(limit)
        if before is not None:
            query = query.where(EpisodeRow.opened < before)
        return [(row.opened, episode_from(row)) for row in self._session.scalars(query)]

    def open_episodes(self, model: str) -> Sequence[Episode]:
        """Return the open episodes, oldest first."""
        query = select(EpisodeRow).where(EpisodeRow.model == model, EpisodeRow.is_open.is_(True))
        return [episode_from(row) for row in self._session.scalars(query.order_by(EpisodeRow.opened))]

    def decisions(self, model: str, *, before: int | None, limit: int) -> Sequence[tuple[int, Decided]]:
        """Return (number, decision), newest first."""
        query = select(DecisionRow).where(DecisionRow.model == model).order_by(DecisionRow.number.desc()).limit(limit)
        if before is not None:
            query = query.where(DecisionRow.number < before)
        return [(row.number, decision_from(row)) for row in self._session.scalars(query)]

    def last_decision(self, episode: str, kind: str | None = None) -> Decided | None:
        """Return the newest decision about an episode, or the newest of a kind."""
        query = select(DecisionRow).where(DecisionRow.episode == episode).order_by(DecisionRow.number.desc()).limit(1)
        if kind is not None:
            query = query.where(DecisionRow.decision == kind)
        row = self._session.scalar(query)
        return decision_from(row) if row is not None else None

    def decision_counts(self) -> dict[str, dict[str, int]]:
        """Return for each model how often each decision was taken."""
        query = select(DecisionRow.model, DecisionRow.decision, func.count())
        counts: dict[str, dict[str, int]] = {}
        for model, decision, number in self._session.execute(query.group_by(DecisionRow.model, DecisionRow.decision)):
            counts.setdefault(model, {})[decision] = number
        return counts

    def command_times(self, model: str) -> Sequence[datetime]:
        """Return the event times of the commands so far."""
        query = select(DecisionRow.at_event_time).where(DecisionRow.model == model, DecisionRow.decision == "command")
        return list(self._session.scalars(query.order_by(DecisionRow.number)))

    def pending(self, model: str | None = None) -> Sequence[Decided]:
        """Return the commands that wait for delivery, oldest first."""
        query = select(DecisionRow).where(DecisionRow.command == "pending")
        if model is not None:
            query = query.where(DecisionRow.model == model)
        return [decision_from(row) for row in self._session.scalars(query.order_by(DecisionRow.number))]


class WritesEpisodes(ReadsEpisodes, Writing):
    """Keeps episodes and decisions."""

    def save_episode(self, model: str, episode: Episode) -> None:
        """Keep an episode."""
        values = episode_values(episode)
        row = self._session.get(EpisodeRow, episode.id)
        if row is None:
            number = self._next(select(func.max(EpisodeRow.opened)).where(EpisodeRow.model == model))
            self._writing.add(EpisodeRow(id=episode.id, model=model, opened=number, **values))
        else:
            for name, value in values.items():
                setattr(row, name, value)
        self._writing.flush()

    def save_decision(self, decision: Decided) -> None:
        """Keep a decision."""
        row = self._session.get(DecisionRow, decision.id)
        if row is not None:
            for name, value in decision_values(decision).items():
                setattr(row, name, value)
            return
        number = self._next(select(func.max(DecisionRow.number)).where(DecisionRow.model == decision.model))
        self._writing.add(
            DecisionRow(
                id=decision.id,
                model=decision.model,
                number=number,
                episode=decision.episode,
                at_event_time=decision.at_event_time,
                decision=decision.decision,
                trigger=decision.trigger,
                label_seq=decision.label_seq,
                traceparent=decision.traceparent,
                **decision_values(decision),
            )
        )
        self._writing.flush()
