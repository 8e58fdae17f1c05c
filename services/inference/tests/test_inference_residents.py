"""A budget of memory: what was used last stays, what is pinned never goes, and what comes back is loaded once."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import GOOD_ROW, Platform, StubRuntime, eventually, make_bundle
from modelyard_bundle.packaging import Packed
from modelyard_bundle.runtimes.base import Runtime
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.testing import FakeClock
from modelyard_inference.usecases.residents import Resident, Residents, estimated_bytes
from prometheus_client import REGISTRY

ROW = {"load": np.array([1.0], dtype=np.float32)}


@dataclass
class Counts:
    """Keeps what was told."""

    evictions: list[str] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)

    def evicted(self, model: str) -> None:
        self.evictions.append(model)

    def returned(self, model: str, took_s: float) -> None:
        self.returns.append(model)


@dataclass
class House:
    """Residents of ten bytes each."""

    budget: int
    pinned: frozenset[str] = frozenset()
    counts: Counts = field(default_factory=Counts)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.residents = Residents(self.budget, self.pinned, self.counts, self.clock)

    def add(self, model: str, size: int = 10) -> Resident:
        one = self.residents.keep(model, StubRuntime(), size, StubRuntime)
        assert isinstance(one, Resident)
        return one


def test_the_one_used_longest_ago_makes_room() -> None:
    house = House(budget=20)
    first, second = house.add("a"), house.add("b")
    first.predict(ROW)
    third = house.add("c")

    assert (first.in_memory, second.in_memory, third.in_memory) == (True, False, True)
    assert house.counts.evictions == ["b"]
    assert (house.residents.size_bytes, sum(one.in_memory for one in (first, second, third))) == (20, 2)


def test_what_is_out_of_memory_blocks_and_answers_after_it_was_loaded() -> None:
    house = House(budget=10)
    first, second = house.add("a"), house.add("b")
    waits = first.blocking

    answer = first.predict(ROW)

    assert waits
    assert not first.blocking
    assert answer.labels.tolist() == [1]
    assert not second.in_memory
    assert house.counts.returns == ["a"]


def test_a_pinned_model_is_never_evicted_even_over_the_budget() -> None:
    house = House(budget=10, pinned=frozenset({"a", "b"}))
    first, second, third = house.add("a"), house.add("b"), house.add("c")
    house.add("d")

    assert (first.in_memory, second.in_memory, third.in_memory) == (True, True, False)


def test_without_a_budget_the_runtime_is_used_as_it_is() -> None:
    runtime = StubRuntime()

    assert House(budget=0).residents.keep("a", runtime, 10, StubRuntime) is runtime


def test_one_thread_loads_it_and_all_that_ask_get_an_answer() -> None:
    house, begun, go = House(budget=10), threading.Barrier(9), threading.Event()

    def slowly() -> Runtime:
        go.wait(10)
        return StubRuntime()

    one = house.residents.keep("a", StubRuntime(), 10, slowly)
    house.add("b")

    def ask() -> list[int]:
        begun.wait(10)
        labels: list[int] = one.predict(ROW).labels.tolist()
        return labels

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask) for _ in range(8)]
        begun.wait(10)
        go.set()
        assert [answer.result(10) for answer in answers] == [[1]] * 8
    assert house.counts.returns == ["a"]


def test_one_that_cannot_be_loaded_is_unavailable_and_tried_again_after_a_rest() -> None:
    house, tries = House(budget=10), []

    def damaged() -> Runtime:
        tries.append(1)
        if len(tries) == 1:
            raise Invalid("the bundle is damaged")
        return StubRuntime()

    one = house.residents.keep("a", StubRuntime(), 10, damaged)
    house.add("b")

    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be loaded here: the bundle is damaged"):
            one.predict(ROW)
    refused = len(tries)
    house.clock.advance(1.1)
    one.predict(ROW)

    assert refused == 1
    assert len(tries) == 2


def test_refusals_while_one_rests_keep_nothing_of_those_who_asked() -> None:
    house, asked = House(budget=10), []

    class Rows(dict[str, np.ndarray]):
        """Can be referred to weakly."""

    def away() -> Runtime:
        raise Unavailable("the registry is away", retry_after_s=7)

    one = house.residents.keep("a", StubRuntime(), 10, away)
    house.add("b")

    def ask() -> tuple[str, float | None]:
        rows = Rows(ROW)
        asked.append(weakref.ref(rows))
        try:
            one.predict(rows)
        except Unavailable as exc:
            return exc.message, exc.retry_after_s
        raise AssertionError("it answered")

    said = {ask() for _ in range(5)}
    gc.collect()

    assert said == {("the registry is away", 7)}
    assert [rows() for rows in asked] == [None] * 5


def test_what_has_just_come_back_is_not_the_one_used_longest_ago() -> None:
    house, meanwhile = House(budget=20), []
    one, second, third = house.add("a"), house.add("b"), house.add("c")
    make_room = house.residents.make_room

    def then_another(newest: Resident) -> None:
        make_room(newest)
        if newest is one and not meanwhile:
            meanwhile.append(third)
            third.let_go()
            third.predict(ROW)

    second.predict(ROW)
    house.residents.make_room = then_another  # type: ignore[method-assign]  # the moment between two steps
    one.predict(ROW)

    assert (one.in_memory, third.in_memory, second.in_memory) == (True, True, False)


def test_a_request_that_runs_keeps_what_is_evicted_meanwhile() -> None:
    house, hold = House(budget=10), threading.Event()
    one = house.residents.keep("a", StubRuntime(hold=hold), 10, StubRuntime)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(one.predict, ROW)
        house.add("b")
        hold.set()
        assert answer.result(10).labels.tolist() == [1]


def test_a_version_that_is_served_no_more_leaves_the_budget() -> None:
    house = House(budget=20)
    house.add("a")
    gc.collect()

    assert house.residents.size_bytes == 0


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 6))
def test_the_budget_holds_and_the_last_used_are_inside_whatever_is_asked(asked: list[int], room: int) -> None:
    house = House(budget=10 * room)
    models = [house.add(str(number)) for number in range(6)]
    last: list[int] = list(range(6))
    for number in asked:
        models[number].predict(ROW)
        last.remove(number)
        last.append(number)

    assert house.residents.size_bytes <= house.budget
    assert {number for number, model in enumerate(models) if model.in_memory} == set(last[-room:])


def test_a_server_answers_for_more_models_than_its_budget_holds(
    platform: Platform, tmp_path: Path, bundles: tuple[Packed, Packed]
) -> None:
    names = ("power", "gas", "water")
    packed = dict(zip(names, (*bundles, make_bundle(tmp_path / "three", seed=3)), strict=True))
    sizes = {name: estimated_bytes(one.manifest, "onnx") for name, one in packed.items()}
    platform.registry.add(*packed.values())
    for name, one in packed.items():
        platform.registry.route(name, str(one.digest))
    rows = {"dataframe_records": [GOOD_ROW]}
    budget = 2 * max(sizes.values())

    before = _counted("modelyard_inference_models_evicted_total")
    # One bundle on disk: what comes back is fetched, verified and asked its probe set as on the first day.
    with (
        platform.inference(memory_budget_bytes=budget, pinned_models={"gas"}, cached_bundles=1) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        for name in names:
            eventually(lambda name=name: http.get(f"/v2/models/{name}/ready").status_code == 200)
        answers = [http.post(f"/models/{name}/invocations", json=rows) for _ in range(3) for name in names]
        described = [http.get(f"/v2/models/{name}").json()["inputs"] for name in names]
        # Gauges are shown once a second.
        inside = eventually(lambda: _counted("modelyard_inference_models_in_memory_bytes"))
        limit = _counted("modelyard_inference_models_in_memory_limit_bytes")

    assert [answer.status_code for answer in answers] == [200] * 9
    assert [answer.json() for answer in answers[:3]] == [answer.json() for answer in answers[3:6]]
    assert described[0] == described[1] == described[2]
    assert limit == budget
    assert inside <= limit
    # All three were loaded once, and then power and water took turns beside gas: at each of six requests but the first
    # of them, and there too when water came last.
    assert 6 <= _counted("modelyard_inference_models_evicted_total") - before <= 7


def test_a_model_whose_bundle_is_gone_is_refused_and_the_others_answer(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    first, second = bundles
    platform.registry.add(first, second)
    platform.registry.route("power", str(first.digest))
    with (
        platform.inference(memory_budget_bytes=1, cached_bundles=1) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        eventually(lambda: http.get("/v2/models/power/ready").status_code == 200)
        platform.registry.route("gas", str(second.digest))
        eventually(lambda: http.get("/v2/models/gas/ready").status_code == 200)
        platform.registry.folders.pop(str(first.digest))
        refused = http.post("/models/power/invocations", json={"dataframe_records": [GOOD_ROW]})
        answered = http.post("/models/gas/invocations", json={"dataframe_records": [GOOD_ROW]})

    assert (refused.status_code, answered.status_code) == (503, 200)
    assert refused.headers["retry-after"]


def _counted(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0
