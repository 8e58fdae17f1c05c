"""Snapshots: what is not shown any more is not scraped any more. Quick histograms: as the library's, counted later."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common import shared_metrics
from modelyard_common.metrics import Gathered, QuickCounter, QuickHistogram, Snapshot
from modelyard_common.tasks import Task
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest


def scraped(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_what_has_left_the_world_leaves_the_scrape() -> None:
    registry = CollectorRegistry()
    versions = Snapshot("served_number", "Number of the version", ["model"], registry=registry)

    versions.show({("a",): 1, ("b",): 2})
    before = scraped(registry)
    versions.show({("b",): 3})

    assert before == ['served_number{model="a"} 1.0', 'served_number{model="b"} 2.0']
    assert scraped(registry) == ['served_number{model="b"} 3.0']


def test_a_number_that_only_grows_is_scraped_as_a_counter() -> None:
    registry = CollectorRegistry()
    decisions = Snapshot("decisions_total", "Decisions", ["model"], kind="counter", registry=registry)

    decisions.show({("a",): 4})

    assert "# TYPE decisions_total counter" in generate_latest(registry).decode()
    assert scraped(registry) == ['decisions_total{model="a"} 4.0']


def test_a_snapshot_without_labels_has_one_series() -> None:
    registry = CollectorRegistry()
    waiting = Snapshot("waiting_seconds", "Waited", registry=registry)

    waiting.show({(): 2.5})

    assert scraped(registry) == ["waiting_seconds 2.5"]


def test_a_series_with_other_labels_than_declared_is_refused_before_anything_is_shown() -> None:
    registry = CollectorRegistry()
    versions = Snapshot("served_number", "Number of the version", ["model"], registry=registry)
    versions.show({("a",): 1})

    with pytest.raises(ValueError, match="has the labels"):
        versions.show({("a", "b"): 2})

    assert scraped(registry) == ['served_number{model="a"} 1.0']


def test_two_metrics_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    Snapshot("served_number", "Number of the version", registry=registry)

    with pytest.raises(ValueError, match="Duplicated"):
        Snapshot("served_number", "Again", registry=registry)


def test_failures_of_a_task_are_counted_from_zero() -> None:
    Task("never-run", lambda _: None)

    assert REGISTRY.get_sample_value("modelyard_task_failures_total", {"task": "never-run"}) == 0


BUCKETS = (0.5, 1.0, 2.5)


@given(st.lists(st.integers(0, 30).map(lambda number: number / 8), max_size=40), st.integers(0, 40))
def test_a_quick_histogram_is_scraped_as_the_library_writes_its_own(amounts: list[float], look: int) -> None:
    quick, plain = CollectorRegistry(), CollectorRegistry()
    ours = QuickHistogram("took_seconds", "Took", ["model"], buckets=BUCKETS, registry=quick).labels("a")
    theirs = Histogram("took_seconds", "Took", ["model"], buckets=BUCKETS, registry=plain).labels("a")

    for number, amount in enumerate(amounts):
        ours.observe(amount)
        theirs.observe(amount)
        if number == look:
            scraped(quick)

    assert _without_created(scraped(quick)) == _without_created(scraped(plain))


def _without_created(lines: list[str]) -> list[str]:
    return [line for line in lines if "_created" not in line]


def test_a_quick_histogram_loses_nothing_between_threads() -> None:
    registry = CollectorRegistry()
    histogram = QuickHistogram("took_seconds", "Took", buckets=BUCKETS, registry=registry)

    def observe() -> None:
        for _ in range(10_000):
            histogram.observe(0.75)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scraped(registry)

    assert 'took_seconds_bucket{le="1.0"} 40000.0' in scraped(registry)
    assert "took_seconds_count 40000.0" in scraped(registry)
    assert "took_seconds_sum 30000.0" in scraped(registry)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40))
def test_a_quick_counter_is_scraped_as_the_library_writes_its_own(amounts: list[int], look: int) -> None:
    quick, plain = CollectorRegistry(), CollectorRegistry()
    ours = QuickCounter("asked_total", "Asked", ["model"], registry=quick).labels("a")
    theirs = Counter("asked_total", "Asked", ["model"], registry=plain).labels("a")

    for number, amount in enumerate(amounts):
        ours.inc(amount)
        theirs.inc(amount)
        if number == look:
            scraped(quick)

    assert _without_created(scraped(quick)) == _without_created(scraped(plain))


def test_a_quick_counter_loses_nothing_between_threads() -> None:
    registry = CollectorRegistry()
    counter = QuickCounter("asked_total", "Asked", registry=registry)
    threads = [threading.Thread(target=lambda: [counter.inc() for _ in range(10_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scraped(registry)

    assert "asked_total 40000.0" in scraped(registry)


def test_where_counts_outlive_their_process_a_quick_counter_keeps_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard_common.shared_metrics.shared", object())
    counter = QuickCounter("asked_total", "Asked", registry=CollectorRegistry())

    counter.inc(3)

    assert counter._value.get() == 3


def test_what_has_gathered_is_counted_when_somebody_looks_and_when_it_is_much() -> None:
    batches: list[int] = []

    class Owner:
        def __init__(self) -> None:
            self.gathered = Gathered(self._count)

        def _count(self, events: Sequence[str]) -> None:
            batches.append(len(events))
            counter.inc(len(events))

    registry = CollectorRegistry()
    counter = QuickCounter("happened_total", "Happened", registry=registry)
    owner = Owner()
    for _ in range(1000):
        owner.gathered.add("it")
    before = sum(batches)

    assert registry.get_sample_value("happened_total") == 1000
    assert 0 < before < 1000
    assert sum(batches) == 1000
    assert len(batches) < 20


def test_nothing_that_happens_while_somebody_looks_is_lost() -> None:
    class Owner:
        def __init__(self) -> None:
            self.gathered = Gathered(self._count)

        def _count(self, events: Sequence[int]) -> None:
            counter.inc(sum(events))

    registry = CollectorRegistry()
    counter = QuickCounter("added_total", "Added", registry=registry)
    owner = Owner()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            registry.get_sample_value("added_total")

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(20_000):
        owner.gathered.add(1)
    over.set()
    looking.join()

    assert registry.get_sample_value("added_total") == 20_000


def test_where_counts_outlive_their_process_each_is_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner:
        def __init__(self) -> None:
            self.seen: list[str] = []
            self.gathered = Gathered(self.seen.extend)

    monkeypatch.setattr(shared_metrics, "shared", object())
    owner = Owner()
    owner.gathered.add("it")

    assert owner.seen == ["it"]
