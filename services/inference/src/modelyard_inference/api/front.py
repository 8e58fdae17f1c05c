"""The one way into the engine: every protocol hands over rows and what came with them, and gets an answer.

Bounds are kept here, so that they hold for all protocols together: requests in flight, rows, the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from modelyard_common.auth.principals import ANONYMOUS, Principal
from modelyard_common.bodies import HeldBytes
from modelyard_common.clock import Clock
from modelyard_common.errors import Denied, Invalid, NotFound, Overloaded

from modelyard_inference.api.codecs.bounds import LARGE_BYTES, check_rows
from modelyard_inference.api.codecs.labels import event_times_from, logged_from, routing_key_from, times_from_header
from modelyard_inference.domain.ports import Lane, Observer
from modelyard_inference.domain.requests import Answer, Answered, Late, Query, Rows
from modelyard_inference.usecases.batching import Done, Leave
from modelyard_inference.usecases.predict import Predict
from modelyard_inference.usecases.serving import ServedModels, Serving
from modelyard_inference.usecases.together import Together

__all__ = ["Bounds", "Front", "Labels", "Places", "timed"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request, and all of them together, may take."""

    timeout_s: float
    max_rows: int
    max_concurrent: int
    max_body_bytes: int = 16 * 1024**2
    max_held_bytes: int = 256 * 1024**2


@dataclass(slots=True)
class Labels:
    """What comes beside a request's body: in headers, or in gRPC's metadata.

    Attributes:
        left_s: what the transport itself allows, when it says, or what is left once the body was read.
        read_s: how long that took, where it is taken off.
        principal: who asks.
    """

    event_time: str | None = None
    routing_key: str | None = None
    timeout_ms: str | None = None
    log: str | None = None
    left_s: float | None = None
    read_s: float = 0.0
    principal: Principal = ANONYMOUS

    @property
    def says_nothing(self) -> bool:
        """Whether there is nothing in them that a request is asked with, as in most."""
        return (
            self.event_time is None
            and self.routing_key is None
            and self.timeout_ms is None
            and self.log is None
            and self.left_s is None
        )


class Places:
    """As many places as requests may be in flight: ``with places`` holds one, or raises Overloaded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *exc: object) -> None:
        self.give_back()

    def take(self) -> None:
        """Take a place. Raise Overloaded when there is none."""
        if not self.are_left(1):
            raise Overloaded(f"{self._most} requests are being answered already", retry_after_s=1)
        self._taken += 1

    def are_left(self, count: int) -> bool:
        """Return whether there are so many, for requests that are over before another may come."""
        return self._taken + count <= self._most

    def give_back(self) -> None:
        """Leave a place to others."""
        self._taken -= 1


class Front:
    """Takes requests for the engine.

    Args:
        reading: where long bodies are read, one at a time: what each is read into takes many times its length.

    Attributes:
        places: for the requests of all protocols.
        held: what their bodies take.
        plain: the engine's.
        took: counts how long it took to read a request and to write its answer.
    """

    def __init__(
        self,
        predict: Predict,
        together: Together,
        served: ServedModels,
        clock: Clock,
        bounds: Bounds,
        observer: Observer,
        reading: Lane,
    ) -> None:
        self._predict = predict
        self._together = together
        self._served = served
        self._clock = clock
        self._reading = reading
        self.bounds = bounds
        self.places = Places(bounds.max_concurrent)
        self.held = HeldBytes(bounds.max_held_bytes)
        self.plain, self.took = predict.plain, observer.took

    def find(self, model: str) -> Serving:
        """Return how a model is served. Raise NotFound or Unavailable."""
        return self._served.find(model)

    def may_wait(self, model: str) -> bool:
        """Return whether a request may wait for the model, so that it is worth knowing when its caller goes."""
        serving = self._served.get(model) if model else None
        return serving is None or serving.candidate is not None or serving.champion.runtime.blocking

    def only_model(self) -> str:
        """Return the model that is meant where none is named, be it ready or not.

        Raises:
            Invalid: there are several; one that is not ready, or was unloaded, counts too, lest another answer for it.
            NotFound: there is none.
            Unavailable: nobody has told us yet which there are, and none are kept from before a restart.
        """
        self._served.must_know(restored=True)  # or the first that is told of would answer for those to come
        names = self._served.routed
        if len(names) == 1:
            return names[0]
        if not names:
            self._served.must_know()
            raise NotFound("there is no model here")
        raise Invalid.at("path", f"several models are served: post to /models/<name>/invocations ({', '.join(names)})")

    async def ask(
        self, model: str, version: str | None, rows: Rows, parameters: Mapping[str, Any], labels: Labels
    ) -> Answer:
        """Return the answer. Raises what ``Predict`` raises, TooLarge for too many rows, Denied for no log."""
        return await self._predict(self._query(model, version, rows, parameters, labels, labels.principal))

    def ask_soon(  # what came, each by itself, for what is hot
        self,
        serving: Serving,
        rows: Rows,
        parameters: Mapping[str, Any],
        labels: Labels,
        principal: Principal,
        done: Done,
        waits: Callable[[Leave], None] = lambda leave: None,
    ) -> bool:
        """Hand over the champion's answer without a coroutine; False where that may not be.

        Raises what ``ask`` does, save for what is handed over.

        Args:
            serving: that is ``plain``.
            principal: who asks; the labels may be those of others who sent the same.
            waits: is told how to leave, where the answer comes in a later turn of the event loop.
        """
        if rows.count > self._predict.champions.soon_rows(serving.champion):
            return False
        query = self._query(serving.routing.model, None, rows, parameters, labels, principal)
        leave = self._predict.answer_soon(query, serving, done)
        if leave is not None:
            waits(leave)
        return True

    def ask_together(
        self,
        serving: Serving,
        rows: Rows,
        counts: Sequence[int],
        arrived: float,
        done: Callable[[Answered], None],
    ) -> bool:
        """Hand over the champion's answers to requests that say nothing but their rows, before this returns; False,
        having done nothing, where each has to be asked by itself.

        Args:
            serving: that is ``plain``, of a champion that does not block.
            rows: of all requests, end to end.
            counts: how many each has.
            arrived: monotonic seconds when the first of them came.
        """
        most = min(self.bounds.max_rows, self._predict.champions.soon_rows(serving.champion))
        if max(counts) > most or not self.places.are_left(len(counts)):
            return False
        return self._together(serving, rows, counts, arrived, done)

    def _query(  # as above
        self,
        model: str,
        version: str | None,
        rows: Rows,
        parameters: Mapping[str, Any],
        labels: Labels,
        principal: Principal,
    ) -> Query:
        if rows.count > self.bounds.max_rows:
            check_rows(rows.count, self.bounds.max_rows)
        now = self._clock.monotonic()
        if not parameters and labels.says_nothing:
            return Query(model, rows, datetime.now(UTC), now + self.bounds.timeout_s, version)
        times: tuple[datetime, ...] = ()
        if "event_time" in parameters:
            times = event_times_from(parameters["event_time"])
        elif labels.event_time:
            times = times_from_header(labels.event_time)
        return Query(
            model,
            rows,
            datetime.now(UTC),
            now + self.timeout_s(labels, parameters.get("timeout")),
            version,
            times,
            routing_key_from(parameters, labels.routing_key),
            _logged(parameters, labels, principal),
        )

    @contextmanager
    def deadline(self, labels: Labels) -> Iterator[float]:
        """Give how long work ahead of the engine may take, and take its time off what is left for the engine."""
        allowed_s, started = self.timeout_s(labels, None), self._clock.monotonic()
        yield allowed_s
        took_s = self._clock.monotonic() - started
        labels.left_s = allowed_s - took_s
        labels.read_s += took_s

    async def read(self, decode: Callable[[], T], size: int, labels: Labels) -> T:
        """Return what a decoder makes of a body of so many bytes, of a long one ``apart``."""
        return decode() if size <= LARGE_BYTES else await self.apart(decode, labels)

    async def apart(self, work: Callable[[], T], labels: Labels) -> T:
        """Return what work on a body returns, which is done off the event loop and within the deadline.

        Raises:
            Late: it was not done in time. Overloaded: too much waits.
            Exception: what work raises.
        """
        with self.deadline(labels) as left_s:
            try:
                return await self._reading.run(work, left_s)
            except Late as exc:
                raise Late("the body was not read within the deadline") from exc

    def timeout_s(self, labels: Labels, timeout_us: Any) -> float:
        """Return the shortest of what the server, the transport and the caller allow."""
        allowed_s = self.bounds.timeout_s
        if labels.left_s is not None:
            allowed_s = min(allowed_s, labels.left_s)
        if labels.timeout_ms is not None:
            text = labels.timeout_ms
            if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) == 0:
                raise Invalid.at("modelyard-timeout-ms", "must be a whole number of milliseconds above 0")
            allowed_s = min(allowed_s, int(text) / 1e3)
        if timeout_us is not None:
            if type(timeout_us) is float and timeout_us.is_integer():  # 1e6 is a whole number as well
                timeout_us = int(timeout_us)
            if type(timeout_us) is not int or timeout_us < 0:
                fix = "must be a whole number of microseconds; 0 leaves it to the server"
                raise Invalid.at("parameters.timeout", fix)
            if timeout_us:
                # Compared as it came: a whole number may be larger than any float.
                is_less = timeout_us < (allowed_s + labels.read_s) * 1e6
                allowed_s = timeout_us / 1e6 - labels.read_s if is_less else allowed_s
        return allowed_s


def timed(decode: Callable[[], T]) -> tuple[T, float]:
    """Return what a decoder makes, and how many seconds it took: whatever waits for its turn has not begun."""
    began = time.perf_counter()
    return decode(), time.perf_counter() - began


def _logged(parameters: Mapping[str, Any], labels: Labels, who: Principal) -> bool:
    """Return whether a request is logged. Raise Denied for callers who may not stay out of what is watched."""
    logged = logged_from(parameters, labels.log)
    if not logged and who.role not in ("service", "admin"):
        raise Denied(f"{who.name} has the role {who.role}; to be asked without a log takes service or admin")
    return logged
