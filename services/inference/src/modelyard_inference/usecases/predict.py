"""Predict: choose who answers, check the rows against that version's signature, answer in time, write it down.

It is a coroutine because most requests are answered right on the event loop: for one row a thread would cost more
than the model. How a version runs is ``Batching``'s: what may take long, and every candidate, in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from modelyard_common.clock import Clock
from modelyard_common.errors import Invalid, Overloaded, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tracing import Value, recorded, span

from modelyard_inference.domain.ports import Observer
from modelyard_inference.domain.requests import Answer, Failed, Late, Query, Role
from modelyard_inference.domain.routing import MAX_AHEAD, is_too_far_ahead
from modelyard_inference.usecases.batching import Batching, Done, Leave, Turn
from modelyard_inference.usecases.judge_candidate import JudgeCandidate
from modelyard_inference.usecases.patience import Patience
from modelyard_inference.usecases.record import Ask
from modelyard_inference.usecases.serving import Guard, LoadedVersion, ServedModels, Serving
from modelyard_inference.usecases.shadow import Shadow

__all__ = ["Predict"]

_log = get_logger(__name__)
_LEAST_S = 0.1
"""Whoever leaves less time says nothing by itself of a candidate that is late."""
_MUCH_LONGER = 2.0
"""Than the champion: far above what two runs of one model differ by on a busy machine."""


@dataclass(frozen=True, slots=True)
class Predict:
    """Answers requests.

    Attributes:
        champions: what is asked for by name, or answers for all.
        candidates: what answers its share, apart, so that one that hangs leaves the champion its own threads.
        patience: of those whom champions answer; a candidate that is away has a champion to answer for it.
        candidate_share: part of the time left that a candidate may take.
        timeout_s: what this server gives a request whose caller asks for no less.
    """

    served: ServedModels
    shadow: Shadow
    judge: JudgeCandidate
    observer: Observer
    clock: Clock
    new_ids: Callable[[int], Sequence[str]]
    champions: Batching
    candidates: Batching
    patience: Patience
    candidate_share: float = 0.5
    timeout_s: float = 10.0

    async def __call__(self, query: Query) -> Answer:
        """Return the answer; its records are written when this returns.

        Raises:
            NotFound: no such model or version here.
            Unavailable: the model is not loaded, or the deadline has passed.
            Overloaded: too much waits for a thread.
            Invalid: the rows do not fit the signature, or an event time lies too far ahead.
            Failed: the model raised.
        """
        if recorded() is None:
            return await self._choose(query, None)
        attributes: dict[str, Value] = {"modelyard.model": query.model, "modelyard.rows": query.rows.count}
        with span("predict", attributes=attributes) as its:
            answer = await self._choose(query, its.traceparent)
            its.set("modelyard.version", answer.number)
            its.set("modelyard.role", answer.role)
            its.set("modelyard.prediction_id", answer.prediction_id)
        return answer

    async def _choose(self, query: Query, traceparent: str | None) -> Answer:
        serving = self.served.find(query.model)
        _refuse_the_future(query, serving)
        ask = Ask(query, serving, self.new_ids(1)[0], traceparent)
        if query.version is not None:
            return await self._named(ask, serving.version(query.version))
        if not query.logged:
            return await self._answer(ask, serving.champion, "champion")
        candidate, guard = serving.candidate, serving.guard
        if candidate is None or guard is None or guard.tripped:
            return await self._answer(ask, serving.champion, "champion")
        route = serving.routing
        if route.candidate is not None and route.candidate.shadow:
            answer = await self._answer(ask, serving.champion, "champion")
            self.shadow.offer(ask)
            return answer
        if route.picks_candidate(query.routing_key or ask.prediction_id):
            return await self._canary(ask, candidate, guard)
        return await self._beside(ask, guard)

    async def _beside(self, ask: Ask, guard: Guard) -> Answer:
        """Return the champion's answer, and let the guard know how long a candidate may take by right."""
        started = self.clock.monotonic()
        answer = await self._answer(ask, ask.serving.champion, "champion")
        guard.champion_s = self.clock.monotonic() - started
        return answer

    async def _canary(self, ask: Ask, candidate: LoadedVersion, guard: Guard) -> Answer:
        """Return the candidate's answer, or the champion's when the candidate fails or is late."""
        started = self.clock.monotonic()
        allowed_s = (ask.query.deadline - started) * self.candidate_share
        unheard = partial(self._unheard, ask, candidate, guard, started)
        try:
            answer = await self.candidates.answer(
                Turn(ask, candidate, "candidate", started + allowed_s, unheard=unheard)
            )
        except Exception as exc:  # a runtime may raise anything; the champion answers for it
            took_s = self.clock.monotonic() - started
            return await self._instead(ask, candidate, guard, exc, took_s)
        guard.succeeded()
        return answer

    def _unheard(
        self, ask: Ask, candidate: LoadedVersion, guard: Guard, started: float, error: Exception | None
    ) -> None:
        """Count how the candidate did although the caller had left: or one that hangs would not be found out by callers
        who are less patient than its share."""
        if error is None:
            guard.succeeded()
            return
        took_s = self.clock.monotonic() - started
        # Rows that no version takes, or a deadline that nobody keeps, are the caller's fault.
        if not isinstance(error, Invalid) and (_took_too_long(guard, took_s) or not isinstance(error, Late)):
            self.judge.failed(ask, candidate, "candidate", error, took_s)

    async def _instead(
        self, ask: Ask, candidate: LoadedVersion, guard: Guard, error: Exception, took_s: float
    ) -> Answer:
        """Return the champion's answer and count the candidate's failure.

        Where the champion does not answer either, it may be the caller's fault: rows that no version takes, or a
        deadline that nobody keeps. That is counted against no candidate, or any caller could end a rollout. Nor is it
        that a candidate is late which had no chance: a share of a deadline that suits the champion may be too little
        for any version. But what callers waited in vain adds up, so that one that hangs is found out by such too.
        """
        try:
            answer = await self._beside(ask, guard)
        except asyncio.CancelledError:
            # Nobody knows what the champion would have said of those rows, or whether it would have been in time.
            if not isinstance(error, Invalid | Late):
                self.judge.failed(ask, candidate, "candidate", error, took_s)
            raise
        if (
            not isinstance(error, Late)
            or guard.waited_in_vain(took_s) >= self.timeout_s * self.candidate_share
            or _took_too_long(guard, took_s)
        ):
            self.judge.failed(ask, candidate, "candidate", error, took_s)
        return answer

    async def _named(self, ask: Ask, loaded: LoadedVersion) -> Answer:
        """Return the answer of the version that was asked for; nobody answers in its place."""
        if loaded is ask.serving.champion:
            return await self._answer(ask, loaded, "champion")
        return await self._answer(ask, loaded, "candidate", logged=loaded is ask.serving.candidate)

    def plain(self, model: str, *, may_wait: bool = False) -> Serving | None:
        """Return how a model is served whose champion alone answers what names no version, without a coroutine.

        Args:
            may_wait: in a later turn of the event loop as well.
        """
        serving = self.served.get(model)
        if serving is None or serving.candidate is not None:
            return None
        return serving if may_wait or not serving.champion.runtime.blocking else None

    def answer_soon(self, query: Query, serving: Serving, done: Done) -> Leave | None:
        """Hand over the champion's answer, or the error, without a coroutine: within this turn of the event loop, or
        later; then this returns what lets its caller leave.

        Nothing of it is recorded as spans.

        Args:
            query: of no more rows than ``soon_rows``.
            serving: that is ``plain``.

        Raises:
            Unavailable: the deadline has passed.
            Overloaded: too much waits for it.
            Invalid: the rows do not fit the signature, or an event time lies too far ahead.
        """
        _refuse_the_future(query, serving)
        ask = Ask(query, serving, self.new_ids(1)[0])
        turn = Turn(ask, serving.champion, "champion", query.deadline)

        def told(answer: Answer | Exception) -> None:
            if isinstance(answer, Exception):
                answer = self._blamed(ask, turn.loaded, turn.role, answer)
            done(answer)

        try:
            if turn.loaded.runtime.blocking:
                return self.patience.answer_soon(self.champions, turn, told)
            return self.champions.answer_soon(turn, told)
        except Exception as exc:
            raise self._blamed(ask, turn.loaded, "champion", exc) from exc

    async def _answer(self, ask: Ask, loaded: LoadedVersion, role: Role, *, logged: bool = True) -> Answer:
        try:
            return await self.patience.answer(self.champions, Turn(ask, loaded, role, ask.query.deadline, logged))
        except Exception as exc:
            raise self._blamed(ask, loaded, role, exc) from exc.__cause__

    def _blamed(self, ask: Ask, loaded: LoadedVersion, role: Role, error: Exception) -> Exception:
        """Return what the caller hears of an error, and count it against the version where it is its fault."""
        if isinstance(error, Invalid):
            return error
        if isinstance(error, Late | Overloaded):
            self._failed(ask, loaded, role, "late" if isinstance(error, Late) else "overloaded")
            return error
        if isinstance(error, Unavailable):
            self._failed(ask, loaded, role, "away")
            return error
        # Not the exception itself: its message may hold what somebody sent.
        _log.error("predict.failed", model=ask.query.model, version=loaded.version.number, kind=type(error).__name__)
        self._failed(ask, loaded, role, "failed")
        failed = Failed()
        failed.__cause__ = error
        return failed

    def _failed(self, ask: Ask, loaded: LoadedVersion, role: Role, reason: str) -> None:
        self.observer.failed(ask.query.model, loaded.version.number, role, reason)


def _took_too_long(guard: Guard, took_s: float) -> bool:
    """Return whether a candidate that is late took much longer than the champion last did."""
    return took_s >= max(_LEAST_S, _MUCH_LONGER * guard.champion_s)


def _refuse_the_future(query: Query, serving: Serving) -> None:
    for row, event_time in enumerate(query.event_times):
        if is_too_far_ahead(serving.routing, event_time, query.arrival):
            path = "event_time" if len(query.event_times) == 1 else f"event_time[{row}]"
            minutes = int(MAX_AHEAD.total_seconds() // 60)
            raise Invalid.at(path, f"lies more than {minutes} minutes ahead of this server's clock")
