"""Versions that come and go under load: no request fails, none sees half of a swap, and nothing of them stays."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from inference_fakes import Platform, eventually, make_bundle
from inference_process import MODEL, RATE, Holding, InferenceProcess, answers_by_version, good_requests, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import Load, Outcome, open_loop


@pytest.fixture(scope="module")
def versions(bundles: tuple[Packed, Packed], tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, ...]:
    """Three bundles in turn: one more than are kept loaded, so that every swap loads one and lets one go."""
    return (*bundles, make_bundle(tmp_path_factory.mktemp("third") / "three", seed=3))


def swap(platform: Platform, server: InferenceProcess, version: Packed) -> None:
    """Make a version the champion, and wait until the server says that it serves it."""
    revision = platform.registry.route(MODEL, str(version.digest)).revision
    eventually(lambda: has_reported(platform, str(version.digest), revision), 30)


def has_reported(platform: Platform, digest: str, revision: int) -> bool:
    reports = platform.registry.reports
    return any((one.digest, one.revision, one.outcome) == (digest, revision, "serving") for one in reports)


def test_twenty_hot_swaps_under_load_fail_no_request(
    platform: Platform, versions: tuple[Packed, ...], tmp_path: Path
) -> None:
    turns = itertools.islice(itertools.cycle(versions), 1, 21)
    with (
        processes(platform, versions, tmp_path) as (server,),
        open_loop([server.url], good_requests(), rate=RATE) as load,
    ):
        load.wait_for(10)
        for version in turns:
            swap(platform, server, version)
            load.wait_for(5)

    assert load.failures == []
    answers = answers_by_version(load)
    assert answers.keys() == {str(version.digest) for version in versions}
    # Each version answers one row in one way, in every protocol: no answer is made of two versions.
    assert all(len(labels) == 1 for labels in answers.values())
    assert len(set(map(frozenset, answers.values()))) > 1
    assert_monotonic(load, platform)


def assert_monotonic(load: Load, platform: Platform) -> None:
    """Who was answered by a revision before another asked: the other is never answered by an older one."""
    revisions = {event["id"]: event["revision"] for event in platform.drift.role("champion")}
    asked = sorted((one for one in load.outcomes if not one.failure), key=lambda one: one.due_s)
    answered = sorted(asked, key=lambda one: one.due_s + one.took_s)
    newest, place, compared = 0, 0, 0
    for one in asked:
        while answered[place].due_s + answered[place].took_s < one.due_s:
            newest = max(newest, revisions.get(row_id(answered[place]), 0))
            place += 1
        revision = revisions.get(row_id(one))
        if revision is not None:  # drift has it already
            assert revision >= newest
            compared += 1
    assert compared > len(asked) / 2


def row_id(one: Outcome) -> str:
    return f"{one.headers['modelyard-prediction-id']}/0"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_swaps_leave_nothing_behind(platform: Platform, versions: tuple[Packed, ...], tmp_path: Path) -> None:
    turns = itertools.cycle(versions)
    next(turns)
    with (
        processes(platform, versions, tmp_path, log_level="warning") as (server,),
        open_loop([server.url], good_requests(), rate=60.0) as load,
    ):
        held: list[Holding] = []
        for number in range(1, 121):
            swap(platform, server, next(turns))
            if number % 20 == 0:
                held.append(server.holds())

    assert load.failures == []
    warm, last = held[0], held[-1]
    assert last.memory_mib < warm.memory_mib + 12, held
    assert last.files <= warm.files + 4, held
    # The pools of threads fill up as far as they may, and no further.
    assert last.threads <= warm.threads + 4, held
