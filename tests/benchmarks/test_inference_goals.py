"""Goals are judged by what was measured: by rate and by CPU, against the best, and never by figures of failures."""

from __future__ import annotations

import pytest
from bench.inference.goals import GOALS, Outcome, judge
from bench.inference.record import Cell, Place, Record, Round, Served
from bench.inference.report import reasons

BUSY = Place(model="linear", dialect="json", rows=1, connections=64)
LONE = Place(model="linear", dialect="json", rows=1, connections=1)
BEST = "linear, 1 row, 64 connections: best peer"
KINDS = {"echo": "limit", "modelyard": "ours", "fastapi": "peer", "kserve": "peer"}


def cell(server: str, place: Place, *, rate: float, cpu_us: float, p99_ms: float = 1.0, failed: int = 0) -> Cell:
    requests = int(rate)
    turn = Round(
        seconds=1,
        requests=requests,
        failed=failed,
        p50_ms=p99_ms / 2,
        p99_ms=p99_ms,
        server_cpu_s=requests * cpu_us / 1e6,
        load_cpu_s=0.1,
    )
    return Cell(server=server, place=place, rounds=(turn,) * 3, problem="a request failed" if failed else None)


def record(*cells: Cell, served: tuple[Served, ...] = ()) -> Record:
    return Record(
        taken="2026-01-01T00:00+00:00",
        commit="0",
        machine="m",
        cores="c",
        neighbours="none",
        versions={},
        rounds=3,
        seconds=1,
        titles={key: key for key in KINDS},
        kinds=KINDS,
        batching=(),
        served=served,
        cells=cells,
    )


def outcome(given: Record, what: str) -> Outcome:
    [found] = [found for goal, found in judge(given) if goal.what == what]
    return found


def test_a_ratio_is_taken_against_the_best_peer() -> None:
    given = record(
        cell("modelyard", BUSY, rate=12_000, cpu_us=50),
        cell("fastapi", BUSY, rate=1_000, cpu_us=900),
        cell("kserve", BUSY, rate=800, cpu_us=1_100),
    )

    found = outcome(given, BEST)

    assert (found.verdict, found.measured, found.by_cpu) == ("met", "12.00 x", "18.00 x")
    assert found.against == "fastapi"


def test_the_echo_is_no_peer() -> None:
    given = record(
        cell("modelyard", BUSY, rate=12_000, cpu_us=50),
        cell("echo", BUSY, rate=40_000, cpu_us=20),
        cell("fastapi", BUSY, rate=1_000, cpu_us=900),
    )

    assert outcome(given, BEST).against == "fastapi"
    assert outcome(given, "linear, 1 row, 64 connections: the echo").measured == "0.30 x"


def test_rate_and_cpu_may_disagree_and_the_verdict_says_so() -> None:
    slow = record(cell("modelyard", BUSY, rate=5_000, cpu_us=50), cell("fastapi", BUSY, rate=1_000, cpu_us=900))
    dear = record(cell("modelyard", BUSY, rate=12_000, cpu_us=100), cell("fastapi", BUSY, rate=1_000, cpu_us=900))

    assert outcome(slow, BEST).verdict == "by CPU only"
    assert outcome(dear, BEST).verdict == "by rate only"


def test_figures_with_failed_requests_meet_nothing() -> None:
    given = record(
        cell("modelyard", BUSY, rate=90_000, cpu_us=5, failed=1), cell("fastapi", BUSY, rate=1_000, cpu_us=900)
    )

    assert outcome(given, BEST).verdict == "not measured"


def test_p99_is_held_against_the_echos() -> None:
    what = "linear, 1 row, 1 connection: p99 above the echo's"
    echo = cell("echo", LONE, rate=9_000, cpu_us=20, p99_ms=0.2)

    near = record(echo, cell("modelyard", LONE, rate=6_000, cpu_us=50, p99_ms=1.1))
    far = record(echo, cell("modelyard", LONE, rate=6_000, cpu_us=50, p99_ms=1.3))

    assert outcome(near, what).verdict == "met"
    assert (outcome(far, what).verdict, outcome(far, what).measured) == ("not met", "+1.10 ms")


def test_memory_is_held_against_the_leanest_peer() -> None:
    what = "memory (RSS) with one model: of the leanest peer"
    servers = (("modelyard", 110.0), ("fastapi", 180.0), ("kserve", 240.0), ("echo", 30.0))
    served = tuple(Served(server=server, model="linear", rss_mib=mib) for server, mib in servers)

    found = outcome(record(served=served), what)

    assert (found.verdict, found.measured) == ("not met", "61% (110 of 180 MiB)")
    assert found.against == "fastapi"


def why(given: Record, what: str) -> list[str]:
    [goal] = [goal for goal in GOALS if goal.what == what]
    assert outcome(given, what).verdict == "not measured"
    return list(reasons(goal, given))


OURS, PEER = cell("modelyard", BUSY, rate=12_000, cpu_us=50), cell("fastapi", BUSY, rate=1_000, cpu_us=900)
FAILED = cell("modelyard", BUSY, rate=12_000, cpu_us=50, failed=1)
NO_START, NOR_THIS = (
    Served(server=server, model="linear", problem="did not start") for server in ("fastapi", "kserve")
)
UNMEASURED = {
    "its place was cut": (record().model_copy(update={"cut": (BUSY,)}), "no time was left"),
    "requests to ours failed": (record(FAILED, PEER), "a request failed"),
    "no peer started": (record(OURS, served=(NO_START, NOR_THIS)), "did not start"),
    "no peer was installed": (
        record(OURS).model_copy(update={"missing": dict.fromkeys(("fastapi", "kserve"), "no wheel")}),
        "no wheel",
    ),
}


@pytest.mark.parametrize(("given", "says"), UNMEASURED.values(), ids=UNMEASURED.keys())
def test_a_goal_that_was_not_measured_has_the_reason_of_its_own_place(given: Record, says: str) -> None:
    found = why(given, BEST)

    assert found and all(says in reason for reason in found)


UNEXPLAINED = {
    "nothing is wrong": record(OURS),
    "another place was cut": record(OURS).model_copy(update={"cut": (LONE,)}),
    "another place failed": record(OURS, cell("fastapi", LONE, rate=1_000, cpu_us=900, failed=1)),
    "the other side failed": record(FAILED),
    "one of two peers did not start": record(OURS, served=(NO_START,)),
    "one of two peers was not installed": record(OURS).model_copy(update={"missing": {"kserve": "no wheel"}}),
    "another model did not start": record(
        OURS, served=(NO_START.model_copy(update={"model": "forest"}), NOR_THIS.model_copy(update={"model": "forest"}))
    ),
    "what is no peer was not installed": record(OURS).model_copy(update={"missing": {"echo": "no wheel"}}),
}


@pytest.mark.parametrize("given", UNEXPLAINED.values(), ids=UNEXPLAINED.keys())
def test_what_went_wrong_elsewhere_is_no_reason(given: Record) -> None:
    assert why(given, BEST) == []


def test_memory_that_was_not_taken_is_explained_by_who_did_not_start() -> None:
    what = "memory (RSS) with one model: of the leanest peer"
    ours = Served(server="modelyard", model="linear", rss_mib=100.0)

    both = ["fastapi, linear: did not start", "kserve, linear: did not start"]
    assert why(record(OURS, served=(ours, NO_START, NOR_THIS)), what) == both
    assert why(record(OURS, PEER, served=(ours,)), what) == []
