"""The goals, each a ratio within one run, and whether the run met it.

A goal of throughput is looked at twice: by rates, and by CPU seconds of the server a request, which hold also while
neighbours take part of the core. It is met where both say so. A figure that does not count meets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from bench.inference.names import Dialect
from bench.inference.record import Cell, Place, Record, best

__all__ = ["GOALS", "Goal", "Outcome", "Side", "judge", "lacking"]

Verdict = Literal["met", "not met", "by rate only", "by CPU only", "not measured"]
_OURS, _BARE, _ECHO = "modelyard", "modelyard-bare", "echo"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run says of a goal.

    Attributes:
        measured: the ratio, or the value, in words.
        by_cpu: the same by CPU a request; empty where that means nothing.
        against: whom it was compared with.
    """

    verdict: Verdict
    measured: str = "-"
    by_cpu: str = ""
    against: str = ""


class Side(NamedTuple):
    """Whom a goal compares, and where: one server, some, or a kind of them; the best of them counts."""

    servers: Sequence[str] | str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """A sentence, and what decides.

    Attributes:
        sides: of each, figures are needed.
    """

    what: str
    target: str
    judge: Callable[[Record], Outcome]
    sides: tuple[Side, ...]


def judge(record: Record) -> list[tuple[Goal, Outcome]]:
    """Return all goals with their outcomes."""
    return [(goal, goal.judge(record)) for goal in GOALS]


def lacking(goal: Goal, record: Record) -> list[Record]:
    """Return what a record holds of each server of a goal's sides that have no figures: it has to hold a reason.

    Of a side that nobody is on it holds nothing.
    """
    return [
        record.about(servers, side.places)
        for side in goal.sides
        if not _figures(side, record)
        for servers in [(server,) for server in _named(record, side.servers)] or [()]
    ]


def _figures(side: Side, record: Record) -> list[Cell]:
    servers = _named(record, side.servers)
    return [cell for place in side.places for server, cell in record.at(place).items() if server in servers]


def _times(target: float, ours: Side, rivals: Side, record: Record) -> Outcome:
    """Compare throughput with a rival, or with the best of a kind."""
    mine, others = best(_figures(ours, record)), _figures(rivals, record)
    by_rate, by_cpu = best(others), min(others, key=lambda cell: cell.cpu_us, default=None)
    if mine is None or by_rate is None or by_cpu is None:
        return Outcome("not measured")
    rate, cpu = mine.rate / by_rate.rate, by_cpu.cpu_us / mine.cpu_us
    verdicts: dict[tuple[bool, bool], Verdict] = {
        (True, True): "met",
        (True, False): "by rate only",
        (False, True): "by CPU only",
        (False, False): "not met",
    }
    names = dict.fromkeys((record.titles[by_rate.server], record.titles[by_cpu.server]))
    return Outcome(verdicts[rate >= target, cpu >= target], f"{rate:.2f} x", f"{cpu:.2f} x", " / ".join(names))


def _named(record: Record, rivals: Sequence[str] | str) -> Sequence[str]:
    if rivals == "peers":
        return record.of_kind("peer")
    if rivals == "batching peers":
        return [server for server in record.of_kind("peer") if server in record.batching]
    return [rivals] if isinstance(rivals, str) else rivals


def _near_echo(most_ms: float, place: Place, record: Record) -> Outcome:
    there = record.at(place)
    if _OURS not in there or _ECHO not in there:
        return Outcome("not measured")
    apart_ms = there[_OURS].p99_ms - there[_ECHO].p99_ms
    return Outcome("met" if apart_ms <= most_ms else "not met", f"{apart_ms:+.2f} ms", "", record.titles[_ECHO])


def _lean(most: float, record: Record) -> Outcome:
    rss = {one.server: one.rss_mib for one in record.served if one.model == "linear" and one.rss_mib is not None}
    peers = {server: rss[server] for server in record.of_kind("peer") if server in rss}
    if _OURS not in rss or not peers:
        return Outcome("not measured")
    leanest = min(peers, key=lambda server: peers[server])
    share = rss[_OURS] / peers[leanest]
    said = f"{share:.0%} ({rss[_OURS]:.0f} of {peers[leanest]:.0f} MiB)"
    return Outcome("met" if share <= most else "not met", said, "", record.titles[leanest])


def _quick_start(most_s: float, record: Record) -> Outcome:
    for one in record.served:
        if one.server == _OURS and one.model == "linear" and one.start_s is not None and one.start_cpu_s is not None:
            verdict: Verdict = "met" if one.start_s < most_s else "not met"
            if verdict == "not met" and one.start_cpu_s < most_s:
                verdict = "by CPU only"
            return Outcome(verdict, f"{one.start_s:.2f} s", f"{one.start_cpu_s:.2f} s")
    return Outcome("not measured")


def _at(model: str, dialect: Dialect, rows: int, connections: int) -> Place:
    return Place(model=model, dialect=dialect, rows=rows, connections=connections)


def _than(
    what: str, target: float, place: Place, rivals: str, *, ours: str = _OURS, rivals_in: Sequence[Dialect] = ()
) -> Goal:
    theirs = tuple(place.model_copy(update={"dialect": dialect}) for dialect in rivals_in) or (place,)
    sides = Side(ours, (place,)), Side(rivals, theirs)
    return Goal(what, f"≥ {target:g} x", partial(_times, target, *sides), sides)


_BUSY, _LONE, _WIDE = _at("linear", "json", 1, 64), _at("linear", "json", 1, 1), _at("linear", "json", 32, 16)
_FOREST = _at("forest", "json", 1, 64)

GOALS: tuple[Goal, ...] = (
    _than("linear, 1 row, 64 connections: best peer", 10, _BUSY, "peers"),
    _than("forest, 1 row, 64 connections: best peer", 8, _FOREST, "peers"),
    _than("linear, 1 row, 64 connections: `mlflow models serve`", 100, _BUSY, "mlflow"),
    _than("linear, 1 row, 64 connections: the echo", 0.5, _BUSY, _ECHO),
    _than("linear, 1 row, 1 connection: best peer", 6, _LONE, "peers"),
    Goal(
        "linear, 1 row, 1 connection: p99 above the echo's",
        "≤ 1 ms",
        partial(_near_echo, 1.0, _LONE),
        (Side(_OURS, (_LONE,)), Side(_ECHO, (_LONE,))),
    ),
    _than("linear, 32 rows, 16 connections, JSON: best peer", 5, _WIDE, "peers"),
    _than(
        "linear, 32 rows, 16 connections, binary tensors: best peer in JSON or binary",
        12,
        _at("linear", "binary", 32, 16),
        "peers",
        rivals_in=("json", "binary"),
    ),
    _than("linear, 1 row, 64 connections, gRPC: MLServer's gRPC", 3, _at("linear", "grpc", 1, 64), "mlserver"),
    _than("linear, 32 rows, 16 connections, gRPC: MLServer's gRPC", 3, _at("linear", "grpc", 32, 16), "mlserver"),
    _than("linear without a twin, 1 row, 64 connections: best batching peer", 3, _BUSY, "batching peers", ours=_BARE),
    _than("forest without a twin, 1 row, 64 connections: best batching peer", 3, _FOREST, "batching peers", ours=_BARE),
    Goal(
        "memory (RSS) with one model: of the leanest peer",
        "≤ 50%",
        partial(_lean, 0.5),
        (Side(_OURS, (_BUSY,)), Side("peers", (_BUSY,))),
    ),
    Goal(
        "from process start to the first right answer",
        "< 2 s",
        partial(_quick_start, 2.0),
        (Side(_OURS, (_BUSY,)),),
    ),
    _than("stretch: linear, 1 row, 64 connections: best peer", 30, _BUSY, "peers"),
)
