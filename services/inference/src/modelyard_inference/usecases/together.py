"""Answer several requests to a quick champion as one: their rows are bound, run, written down and counted together.

Each is answered as if it had come alone. Where anything is out of the ordinary, which of them it is has not to be found
here: nothing has been written or counted yet, and each is asked by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from modelyard_common.clock import Clock

from modelyard_inference.domain.answers import Answers, AnswerTable
from modelyard_inference.domain.binding import Bound
from modelyard_inference.domain.coalescing import batches
from modelyard_inference.domain.ports import Observer, PayloadSink, Run
from modelyard_inference.domain.requests import Answered, Rows
from modelyard_inference.usecases.record import champion_blocks
from modelyard_inference.usecases.serving import Serving

__all__ = ["Together"]

_Ran = tuple[Sequence[int], float]
"""How many rows each had that ran together, and for how many seconds that was."""


class Together:
    """Answers requests of several callers.

    Args:
        new_ids: makes so many prediction ids.
        most_rows: that run as one batch, where the model's manifest does not say less.
        counts_first: before the answers leave, where counts outlive the process; else behind them.
    """

    def __init__(
        self,
        *,
        sink: PayloadSink,
        observer: Observer,
        clock: Clock,
        new_ids: Callable[[int], Sequence[str]],
        most_rows: int,
        counts_first: bool = False,
    ) -> None:
        self._sink = sink
        self._observer = observer
        self._clock = clock
        self._new_ids = new_ids
        self._most_rows = most_rows
        self._counts_first = counts_first

    def __call__(
        self,
        serving: Serving,
        rows: Rows,
        counts: Sequence[int],
        arrived: float,
        done: Callable[[Answered], None],
    ) -> bool:
        """Hand over the champion's answers before this returns; their records are written then.

        Args:
            serving: that is ``plain``, of a champion that does not block.
            rows: of all requests, end to end.
            counts: how many each has.
            arrived: monotonic seconds when the first of them came.

        Returns:
            False, having done nothing, where one of them is not answered as usual.
        """
        champion = serving.champion
        began, arrival = self._clock.monotonic(), self._clock.now()
        try:
            bound = champion.binder.bind(rows)
            ran, answers = self._answers(serving, bound, counts)
        except Exception:  # a runtime may raise anything; asked by themselves, it is found out whose fault it is
            return False
        ended = self._clock.monotonic()
        ids = self._new_ids(len(counts))
        blocks = champion_blocks(
            serving,
            bound,
            counts,
            ids,
            answers,
            arrival=arrival,
            queue_s=began - arrived,
            latency_s=ended - arrived,
        )
        self._sink.append(blocks)
        version, signature, model = champion.version, champion.signature, serving.routing.model
        found = Answered(ids, model, version.number, version.digest, signature, answers)
        if self._counts_first:
            self._count(serving, ran, began - arrived, ended - arrived)
            done(found)
        else:  # behind the answers: their callers have them while this is counted
            done(found)
            self._count(serving, ran, began - arrived, ended - arrived)
        return True

    def _count(self, serving: Serving, ran: Sequence[_Ran], queued_s: float, took_s: float) -> None:
        model, number = serving.routing.model, serving.champion.version.number
        for counts, predict_s in ran:
            requests = len(counts)
            run = Run(model, number, requests, predict_s, sum(counts))
            run.answers["champion"] = (list(counts), [took_s] * requests)
            run.queued_s.extend([queued_s] * requests)
            self._observer.ran(run)

    def _answers(
        self, serving: Serving, bound: Bound, counts: Sequence[int]
    ) -> tuple[Sequence[_Ran], Iterable[Answers]]:
        """Return what ran together, and the answers to each request. Raise what any of them would be refused for."""
        champion = serving.champion
        ran: list[_Ran] = []
        tables: list[AnswerTable] = []
        place = 0
        for batch in batches(counts, serving.routing.most_rows(self._most_rows)):
            began = self._clock.monotonic()
            end = place + sum(batch)
            tables.append(champion.reader.table(batch, champion.runtime.predict(bound.part(place, end).columns)))
            place = end
            ran.append((batch, self._clock.monotonic() - began))
        return ran, tables[0] if len(tables) == 1 else list(chain.from_iterable(tables))
