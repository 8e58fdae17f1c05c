"""The drill of docs/operations.md: a platform that works is backed up, lost with its databases, and restored.

One life and its afterlife for all tests. Inference's volume outlives the disaster, as a claim does: what it remembers
is younger than the backup.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from modelyard_client import Modelyard
from sqlalchemy import create_engine, text

from tests.operations.drill import MODEL, Seen, Site, ask, first_life, ids_once, is_quiet, look, lose, restore, until
from tests.operations.handbook import blocks

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Afterlife:
    """What there was, and what there is."""

    before: Seen
    end: Seen
    spooled: list[str]
    after: Seen
    client: Modelyard
    site: Site


@pytest.fixture(scope="module")
def afterlife(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Afterlife]:
    """A platform that was lost, restored and started again by services that insist on their schema."""
    site, backup = Site(postgres_server, tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("backup")
    site.make_databases()
    before, end, spooled = first_life(site, backup)
    lose(site)
    restore(site, backup)
    with site.platform("require") as (_, client):
        until(lambda: client.inference.ready(MODEL))
        until(lambda: set(spooled) <= set(client.drift.prediction_ids(MODEL)))
        until(lambda: is_quiet(client, len(before.logged)))
        until(lambda: client.inference.revision(MODEL) == client.registry.routing(MODEL).revision)
        yield Afterlife(before, end, spooled, look(client), client, site)


def test_the_ledger_goes_on_where_the_backup_ends_and_its_chain_holds(afterlife: Afterlife) -> None:
    known = len(afterlife.before.ledger)

    assert afterlife.after.intact
    assert afterlife.after.ledger[:known] == afterlife.before.ledger
    assert [entry.kind for entry in afterlife.after.ledger[known:]] == ["model.restored"]


def test_every_row_and_label_that_was_there_before_the_backup_is_there_once(afterlife: Afterlife) -> None:
    assert set(afterlife.before.logged) <= set(afterlife.after.logged)
    assert ids_once(afterlife.after.logged)
    assert afterlife.before.labels <= afterlife.after.labels < afterlife.end.labels
    assert afterlife.after.windows >= afterlife.before.windows


def test_what_inference_had_not_sent_when_all_was_lost_arrives(afterlife: Afterlife) -> None:
    assert set(afterlife.spooled) <= set(afterlife.after.logged)
    assert not set(afterlife.spooled) & set(afterlife.end.logged)


def test_the_champion_serves_from_the_restored_artifacts_and_nothing_is_trained_again(afterlife: Afterlife) -> None:
    file = afterlife.client.registry.file(MODEL, afterlife.before.champion, "baseline.json")

    assert file
    assert afterlife.after.champion == afterlife.before.champion
    assert afterlife.after.runs == afterlife.before.runs


def test_a_dataset_comes_back_as_it_was(afterlife: Afterlife, tmp_path: Path) -> None:
    copy = afterlife.client.training.download_dataset(afterlife.before.dataset, tmp_path / "copy.parquet")

    again = afterlife.client.training.upload_dataset(copy, name="again.parquet")

    assert afterlife.after.dataset == afterlife.before.dataset == again.digest


def test_no_revision_is_told_twice_and_inference_follows(afterlife: Afterlife) -> None:
    assert afterlife.end.revision > afterlife.before.revision
    assert afterlife.after.revision > afterlife.end.revision
    assert afterlife.after.served == afterlife.after.revision


def test_the_loop_goes_on(afterlife: Afterlife) -> None:
    told = {*afterlife.end.logged, *afterlife.after.logged}

    ids = ask(afterlife.client, 60, 70)
    until(lambda: set(ids) <= set(afterlife.client.drift.prediction_ids(MODEL)))
    until(lambda: is_quiet(afterlife.client, afterlife.after.requests + len(ids)))

    status = afterlife.client.drift.status(MODEL)
    assert not told & set(ids)
    assert status.requests == afterlife.after.requests + len(ids)
    assert status.labels == afterlife.after.labels + len(ids)
    assert status.ingest_seq > afterlife.after.ingest_seq
    assert status.label_seq > afterlife.after.label_seq
    assert (status.reference, status.note) == (afterlife.after.champion, "")
    assert len(afterlife.client.drift.windows(MODEL)) > afterlife.after.windows


def test_the_query_that_sizes_the_log_answers(afterlife: Afterlife) -> None:
    [query] = blocks("Capacity", "sql")
    engine = create_engine(afterlife.site.url("drift").replace("postgresql://", "postgresql+psycopg://", 1))

    with engine.connect() as connection:
        bytes_a_row, number = connection.execute(text(query)).one()
    engine.dispose()

    assert number >= len(afterlife.after.logged)
    assert bytes_a_row > 0
