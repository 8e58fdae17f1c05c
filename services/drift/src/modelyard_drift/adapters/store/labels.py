"""Labels: as they were received, joined to the rows that they speak of, and waiting for those to come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import Select, and_, exists, func, insert, select, update

from modelyard_drift.adapters.store.session import Reading, Writing, chunks, is_answer, newest_label
from modelyard_drift.adapters.tables import LabelRow, PredictionRow
from modelyard_drift.domain.performance import Answered
from modelyard_drift.usecases.ports import KeptLabel, LabelledRow

__all__ = ["ReadsLabels", "WritesLabels"]


class ReadsLabels(Reading):
    """Reads labels with their rows."""

    def answered(self, model: str, *, first_seq: int, last_seq: int) -> Sequence[Answered]:
        """Return the labelled rows of a part of the log."""
        query = self._joined(model).where(is_answer(), PredictionRow.seq.between(first_seq, last_seq))
        return self._answered(query)

    def answered_in(self, model: str, revision: int) -> Sequence[Answered]:
        """Return the labelled rows of a routing revision, shadow copies included."""
        query = self._joined(model).where(PredictionRow.revision == revision, PredictionRow.error.is_(None))
        return self._answered(query)

    def labelled(self, model: str, until: int) -> Iterator[LabelledRow]:
        """Yield answered rows with labels received up to a sequence number, by event time, then ingest."""
        query = (
            select(
                PredictionRow.id,
                PredictionRow.event_time,
                LabelRow.seq,
                LabelRow.value,
                PredictionRow.prediction,
                PredictionRow.version,
                PredictionRow.features,
            )
            .join(LabelRow, and_(LabelRow.model == PredictionRow.model, LabelRow.prediction_id == PredictionRow.id))
            .where(PredictionRow.model == model, is_answer(), PredictionRow.sampled.is_(True))
            .where(LabelRow.seq <= until, newest_label(until))
            .order_by(PredictionRow.event_time, PredictionRow.seq)
            .execution_options(yield_per=2000)
        )
        for id_, event_time, seq, value, prediction, version, features in self._session.execute(query):
            yield LabelledRow(
                id_, event_time, seq, json.loads(value), json.loads(prediction), version, json.loads(features)
            )

    def label_places(self, model: str, *, after: int, limit: int) -> tuple[int, Sequence[int]]:
        """Return (the last label seq looked at, the prediction seqs that those labels belong to)."""
        labels = (
            select(LabelRow.seq, LabelRow.prediction_id, LabelRow.joined)
            .where(LabelRow.model == model, LabelRow.seq > after)
            .order_by(LabelRow.seq)
            .limit(limit)
        )
        found = self._session.execute(labels).all()
        if not found:
            return after, []
        places: list[int] = []
        for ids in chunks([id_ for _, id_, joined in found if joined]):
            query = select(PredictionRow.seq).where(
                PredictionRow.model == model, PredictionRow.id.in_(ids), is_answer()
            )
            places += self._session.scalars(query)
        return found[-1][0], places

    def unlabelled(self, model: str, *, up_to: datetime) -> int:
        """Return how many answered rows up to an event time have no label."""
        labelled = exists().where(LabelRow.model == PredictionRow.model, LabelRow.prediction_id == PredictionRow.id)
        query = (
            select(func.count())
            .select_from(PredictionRow)
            .where(PredictionRow.model == model, is_answer(), PredictionRow.event_time <= up_to, ~labelled)
        )
        return self._session.scalar(query) or 0

    def _joined(self, model: str) -> Select[str, str, str, float | None]:
        return (
            select(PredictionRow.version, LabelRow.value, PredictionRow.prediction, PredictionRow.score)
            .join(LabelRow, and_(LabelRow.model == PredictionRow.model, LabelRow.prediction_id == PredictionRow.id))
            .where(PredictionRow.model == model, newest_label())
            .order_by(PredictionRow.seq)
        )

    def _answered(self, query: Select[str, str, str, float | None]) -> Sequence[Answered]:
        return [
            Answered(version=version, truth=json.loads(value), answer=json.loads(prediction), score=score)
            for version, value, prediction, score in self._session.execute(query)
        ]


class WritesLabels(ReadsLabels, Writing):
    """Takes labels."""

    def kept_labels(self, model: str, ids: Sequence[str]) -> dict[str, KeptLabel]:
        """Return the newest revision of each label that is known."""
        kept: dict[str, KeptLabel] = {}
        for some in chunks(ids):
            query = (
                select(LabelRow.prediction_id, LabelRow.value, LabelRow.revision)
                .where(LabelRow.model == model, LabelRow.prediction_id.in_(some))
                .order_by(LabelRow.revision)
            )
            for id_, value, revision in self._session.execute(query):
                kept[id_] = KeptLabel(id_, json.loads(value), revision)
        return kept

    def append_labels(self, model: str, first_seq: int, labels: Sequence[tuple[KeptLabel, bool]]) -> None:
        """Append (label, whether its prediction is here)."""
        if not labels:
            return
        self._writing.execute(
            insert(LabelRow),
            [
                {
                    "model": model,
                    "seq": first_seq + place,
                    "prediction_id": label.prediction_id,
                    "revision": label.revision,
                    "value": json.dumps(label.value),
                    "joined": joined,
                }
                for place, (label, joined) in enumerate(labels)
            ],
        )

    def join_waiting(self, model: str, ids: Sequence[str], first_seq: int) -> int:
        """Join the waiting labels of rows that have come; they count as received now, from first_seq on."""
        waiting: list[int] = []
        for some in chunks(ids):
            query = select(LabelRow.seq).where(
                LabelRow.model == model, LabelRow.prediction_id.in_(some), LabelRow.joined.is_(False)
            )
            waiting += self._session.scalars(query)
        for place, seq in enumerate(sorted(waiting)):
            self._writing.execute(
                update(LabelRow)
                .where(LabelRow.model == model, LabelRow.seq == seq)
                .values(seq=first_seq + place, joined=True)
            )
        return len(waiting)
