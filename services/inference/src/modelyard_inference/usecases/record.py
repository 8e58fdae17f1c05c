"""Write down what was answered, stamped with the revision and champion that were in force."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from modelyard_inference.domain.answers import Answers, AnswerTable
from modelyard_inference.domain.binding import Bound
from modelyard_inference.domain.records import Alike, Block, Stamp
from modelyard_inference.domain.requests import Query, Role
from modelyard_inference.domain.routing import samples
from modelyard_inference.usecases.serving import LoadedVersion, Serving

__all__ = ["Ask", "answer_block", "champion_blocks", "error_block"]


class Ask(msgspec.Struct, frozen=True):
    """A request with the snapshot that it is answered from and the id that it got."""

    query: Query
    serving: Serving
    prediction_id: str
    traceparent: str | None = None
    """The trace that its records name, where one is recorded."""


def answer_block(
    ask: Ask,
    loaded: LoadedVersion,
    role: Role,
    bound: Bound,
    answers: Answers,
    latency_s: float,
    *,
    queue_s: float = 0.0,
) -> Block:
    """Return the records of an answer; ``queue_s`` of ``latency_s`` went by before the model ran."""
    routing = ask.serving.routing
    names: Sequence[str] | None = None
    values: Sequence[Any] | memoryview = ()
    if samples(ask.prediction_id, routing.log_payloads):
        names, values = loaded.binder.logged(bound, redact=routing.redact)
    stamp = Stamp(_asked(ask, loaded, role, latency_s, names), _rest(queue_s, traceparent=ask.traceparent))
    return stamp.block(ask.prediction_id, ask.query.rows.count, values, answers.labels, answers.scores)


def error_block(ask: Ask, loaded: LoadedVersion, role: Role, error: str, latency_s: float) -> Block:
    """Return the records of a version's failure; they hold no values."""
    stamp = Stamp(_asked(ask, loaded, role, latency_s, ()), _rest(error=error, traceparent=ask.traceparent))
    return stamp.block(ask.prediction_id, ask.query.rows.count)


def champion_blocks(
    serving: Serving,
    bound: Bound,
    counts: Sequence[int],
    ids: Sequence[str],
    answers: Iterable[Answers],
    *,
    arrival: datetime,
    queue_s: float,
    latency_s: float,
) -> Iterable[Block]:
    """Return the same of the champion's answers to several requests that came together and say nothing but their rows.

    Args:
        bound: the rows of all, end to end.
        counts: how many each has.
    """
    routing, champion = serving.routing, serving.champion
    share = routing.log_payloads
    names, values = champion.binder.logged(bound, redact=routing.redact) if share > 0 else ((), ())
    of_names = partial(_shared, serving, champion, "champion", (arrival,), arrival, latency_s, "")
    rest = _rest(queue_s)
    logged = Stamp(of_names(names), rest)
    if isinstance(values, memoryview) and isinstance(answers, AnswerTable) and share >= 1:
        return Alike(logged, ids, values, answers)
    unlogged = Stamp(of_names(None), rest)
    width = len(values) // bound.rows.count
    blocks, place = [], 0
    for prediction_id, count, its in zip(ids, counts, answers, strict=True):
        start, place = place, place + count * width
        if samples(prediction_id, share):
            blocks.append(logged.block(prediction_id, count, values[start:place], its.labels, its.scores))
        else:
            blocks.append(unlogged.block(prediction_id, count, (), its.labels, its.scores))
    return blocks


def _asked(
    ask: Ask, loaded: LoadedVersion, role: Role, latency_s: float, names: Sequence[str] | None
) -> tuple[Any, ...]:
    query = ask.query
    times = query.event_times or (query.arrival,)
    return _shared(ask.serving, loaded, role, times, query.arrival, latency_s, query.routing_key or "", names)


def _shared(
    serving: Serving,
    loaded: LoadedVersion,
    role: Role,
    event_times: Sequence[datetime],
    arrival: datetime,
    latency_s: float,
    routing_key: str,
    names: Sequence[str] | None,
) -> tuple[Any, ...]:
    """Return a stamp's ``shared``; without names the features are not sampled."""
    routing = serving.routing
    return (
        routing.model,
        routing.revision,
        serving.champion.version.digest,
        loaded.version.digest,
        role,
        event_times,
        arrival,
        round(latency_s * 1e3, 4),
        routing_key,
        names is not None,
        names or (),
    )


def _rest(queue_s: float = 0.0, *, error: str | None = None, traceparent: str | None = None) -> tuple[Any, ...]:
    """Return a stamp's ``rest``, of blocks that begin with an answer's first row."""
    return (error, traceparent, 0, round(queue_s * 1e3, 4))
