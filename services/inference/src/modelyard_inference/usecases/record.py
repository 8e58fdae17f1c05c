"""Write down what was answered, stamped with the revision and champion that were in force."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from modelyard_inference.domain.answers import Answers, AnswerTable
from modelyard_inference.domain.binding import Bound
from modelyard_inference.domain.records import Alike, Block
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
    query, routing = ask.query, ask.serving.routing
    sampled = samples(ask.prediction_id, routing.log_payloads)
    names, values = loaded.binder.logged(bound, redact=routing.redact) if sampled else ((), ())
    return Block(
        ask.prediction_id,
        query.rows.count,
        query.model,
        routing.revision,
        ask.serving.champion.version.digest,
        loaded.version.digest,
        role,
        query.event_times or (query.arrival,),
        query.arrival,
        round(latency_s * 1e3, 4),
        query.routing_key or "",
        sampled,
        names,
        values,
        answers.labels,
        answers.scores,
        None,
        ask.traceparent,
        0,
        round(queue_s * 1e3, 4),
    )


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
    names, values = champion.binder.logged(bound, redact=routing.redact) if routing.log_payloads > 0 else ((), ())
    width = len(values) // bound.rows.count
    digest, times = champion.version.digest, (arrival,)
    latency_ms, queue_ms = round(latency_s * 1e3, 4), round(queue_s * 1e3, 4)
    if isinstance(values, memoryview) and isinstance(answers, AnswerTable) and routing.log_payloads >= 1:
        shared = Block(
            id="",
            rows=0,
            model=routing.model,
            revision=routing.revision,
            champion=digest,
            version=digest,
            role="champion",
            event_times=times,
            arrival=arrival,
            latency_ms=latency_ms,
            routing_key="",
            sampled=True,
            names=names,
            values=(),
            predictions=(),
            scores=None,
            queue_ms=queue_ms,
        )
        return Alike(shared, ids, values, answers)
    blocks, place = [], 0
    for prediction_id, count, its in zip(ids, counts, answers, strict=True):
        sampled = samples(prediction_id, routing.log_payloads)
        start, place = place, place + count * width
        blocks.append(
            Block(
                prediction_id,
                count,
                routing.model,
                routing.revision,
                digest,
                digest,
                "champion",
                times,
                arrival,
                latency_ms,
                "",
                sampled,
                names if sampled else (),
                values[start:place] if sampled else (),
                its.labels,
                its.scores,
                None,
                None,
                0,
                queue_ms,
            )
        )
    return blocks


def error_block(ask: Ask, loaded: LoadedVersion, role: Role, error: str, latency_s: float) -> Block:
    """Return the records of a version's failure; they hold no values."""
    query, serving = ask.query, ask.serving
    return Block(
        id=ask.prediction_id,
        rows=query.rows.count,
        model=query.model,
        revision=serving.routing.revision,
        champion=serving.champion.version.digest,
        version=loaded.version.digest,
        role=role,
        event_times=query.event_times or (query.arrival,),
        arrival=query.arrival,
        latency_ms=round(latency_s * 1e3, 4),
        routing_key=query.routing_key or "",
        sampled=True,
        names=(),
        values=(),
        predictions=(),
        scores=None,
        error=error,
        traceparent=ask.traceparent,
    )
