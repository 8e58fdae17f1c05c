"""The store, on SQLite and on PostgreSQL: values survive, keys are unique, order and pages hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_training.adapters.store import SqlTransactions
from modelyard_training.domain.datasets import Dataset, DatasetColumn
from modelyard_training.domain.ports import Claim, KnownModel
from modelyard_training.domain.runs import Run, State, Trigger, ask_to_stop, begin, finish, settle
from modelyard_training.domain.schedules import Schedule
from sqlalchemy.exc import IntegrityError

NOW = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def transactions(any_database: Database) -> Iterator[SqlTransactions]:
    upgrade(any_database, "modelyard_training")
    yield SqlTransactions(any_database)


def test_a_run_survives_the_way_through_its_row(transactions: SqlTransactions, make_run: Callable[..., Run]) -> None:
    run = replace(
        ask_to_stop(begin(make_run(until_label_seq=2**40), NOW), State.CANCELLED, NOW, "why not"),
        trigger=Trigger("drift", "PSI", "episode-1"),
        metrics={"accuracy": 0.75},
        evaluation={"run": "run-0001", "rows": 3},
        version="sha256:" + "a" * 64,
        report_seq=7,
        report_digest="b" * 64,
        progress=0.25,
    )
    with transactions.write() as store:
        store.add_run(make_run(), ())
        store.save_run(run)
    with transactions.read() as reader:
        assert reader.run(run.id) == run


def test_a_nul_in_a_reason_is_left_out(transactions: SqlTransactions, make_run: Callable[..., Run]) -> None:
    with transactions.write() as store:
        store.add_run(make_run(reason="a\0b"), ())
    with transactions.read() as reader:
        found = reader.run("run-0001")
    assert found is not None
    assert found.reason == "ab"


def test_a_claim_leads_to_its_run_and_cannot_be_made_twice(
    transactions: SqlTransactions, make_run: Callable[..., Run]
) -> None:
    with transactions.write() as store:
        store.add_run(make_run(), (Claim("key/k", "digest"), Claim("episode/m/e")))
    with transactions.read() as reader:
        assert reader.claimed("key/k") == (make_run(), "digest")
        assert reader.claimed("key/other") is None
    with pytest.raises(IntegrityError), transactions.write() as store:
        store.add_run(make_run(id="run-0002"), (Claim("key/k", "digest"),))
    with transactions.read() as reader:
        assert reader.run("run-0002") is None


def test_runs_are_listed_newest_first_by_page_model_and_state(
    transactions: SqlTransactions, make_run: Callable[..., Run]
) -> None:
    with transactions.write() as store:
        for number in range(1, 6):
            store.add_run(make_run(id=f"run-{number}", model="even" if number % 2 == 0 else "odd"), ())
        store.save_run(begin(make_run(id="run-3", model="odd"), NOW))
    with transactions.read() as reader:
        assert [run.id for run in reader.runs(limit=2)] == ["run-5", "run-4"]
        assert [run.id for run in reader.runs(before="run-4")] == ["run-3", "run-2", "run-1"]
        assert [run.id for run in reader.runs(model="even")] == ["run-4", "run-2"]
        assert [run.id for run in reader.runs(state=State.STARTING)] == ["run-3"]
        assert [run.id for run in reader.waiting(2)] == ["run-1", "run-2"]
        assert [run.id for run in reader.live_runs("odd")] == ["run-1", "run-3", "run-5"]
        assert (reader.count(State.PENDING), reader.count(State.STARTING, State.RUNNING)) == (4, 1)


def test_unfinished_runs_are_those_whose_process_may_still_be_there(
    transactions: SqlTransactions, make_run: Callable[..., Run]
) -> None:
    at_work = begin(make_run(id="run-2"), NOW)
    over = finish(begin(make_run(id="run-3"), NOW), State.FAILED, NOW, "")
    with transactions.write() as store:
        for run in (make_run(), at_work, over, settle(replace(over, id="run-4"))):
            store.add_run(run, ())
    with transactions.read() as reader:
        assert [run.id for run in reader.unfinished()] == ["run-2", "run-3"]


@pytest.mark.parametrize(("only_unsuccessful", "left"), [(True, ["spec/m/b"]), (False, [])])
def test_claims_for_specs_are_given_up_and_no_others(
    transactions: SqlTransactions, make_run: Callable[..., Run], only_unsuccessful: bool, left: list[str]
) -> None:
    failed = finish(begin(make_run(), NOW), State.FAILED, NOW, "")
    succeeded = finish(begin(make_run(id="run-2"), NOW), State.SUCCEEDED, NOW, "")
    with transactions.write() as store:
        store.add_run(failed, (Claim("spec/m/a"), Claim("key/k")))
        store.add_run(succeeded, (Claim("spec/m/b"),))
        store.add_run(make_run(id="run-3", model="m2"), (Claim("spec/m2/a"),))
        store.release("m", only_unsuccessful=only_unsuccessful)
    with transactions.read() as reader:
        claims = ["spec/m/a", "spec/m/b", "key/k", "spec/m2/a"]
        assert [key for key in claims if reader.claimed(key)] == [*left, "key/k", "spec/m2/a"]


def test_datasets_survive_are_kept_once_and_paged(transactions: SqlTransactions) -> None:
    columns = (DatasetColumn("a", "category", True, categories=("x", "y")), DatasetColumn("b", "number", False, 0, 2))
    made = [
        Dataset("sha256:" + letter * 64, 10, 100, columns, NOW + timedelta(seconds=index // 2), "elec")
        for index, letter in enumerate("abcd")
    ]
    with transactions.write() as store:
        for dataset in made:
            assert store.add_dataset(dataset) == dataset
        assert store.add_dataset(replace(made[0], name="other")) == made[0]
    with transactions.read() as reader:
        assert reader.dataset(made[1].digest) == made[1]
        first = reader.datasets(limit=3)
        assert list(first) == [made[3], made[2], made[1]]
        assert list(reader.datasets(before=first[-1].digest)) == [made[0]]


def test_models_and_schedules_survive(transactions: SqlTransactions, make_spec: Callable[..., dict[str, Any]]) -> None:
    written = make_spec(paused=True)
    model = KnownModel("m", "sha256:" + "a" * 64, ManagedModelSpec.model_validate(written), written, None)
    schedule = Schedule("m", "0 3 * * 1", NOW, note="new")
    with transactions.write() as store:
        store.save_model(model)
        store.save_model(replace(model, champion="sha256:" + "b" * 64, deleted=True))
        store.save_schedule(schedule)
        store.save_schedule(replace(schedule, model="other"))
    with transactions.write() as store:
        assert store.lock_schedule("m", "0 3 * * 1") == schedule
        store.drop_schedule("other", "0 3 * * 1")
    with transactions.read() as reader:
        assert list(reader.models()) == [replace(model, champion="sha256:" + "b" * 64, deleted=True)]
        assert list(reader.schedules()) == [schedule]
        assert list(reader.schedules("other")) == []


def test_whoever_has_locked_the_queue_keeps_the_others_out(
    transactions: SqlTransactions, make_run: Callable[..., Run]
) -> None:
    """Twenty threads each add a run if there are fewer than three: without the lock there would be more."""

    def add(number: int) -> None:
        with transactions.write() as store:
            store.lock_queue()
            if store.count(State.PENDING) < 3:
                store.add_run(make_run(id=f"run-{number}"), ())

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with transactions.read() as reader:
        assert reader.count(State.PENDING) == 3
