from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from modelyard_common.db import Database
from modelyard_common.db.migrate import is_current, upgrade
from modelyard_registry.adapters.tables import Base
from registry_fakes import FakeEvidence, FakeMlflow, Platform, serving
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError


def test_migrations_make_exactly_the_tables_that_the_code_has(any_database: Database) -> None:
    upgrade(any_database, "modelyard_registry")
    upgrade(any_database, "modelyard_registry")
    assert is_current(any_database, "modelyard_registry")
    with any_database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE ledger SET actor = 'eve' WHERE seq = 2",
        "UPDATE ledger SET body = '{}' WHERE seq = 3",
        "DELETE FROM ledger WHERE seq = 1",
        "DELETE FROM ledger WHERE seq = (SELECT MAX(seq) FROM ledger)",
    ],
)
def test_tampering_with_the_ledger_is_noticed(any_database: Database, tmp_path: Path, tampering: str) -> None:
    upgrade(any_database, "modelyard_registry")
    with serving(any_database, tmp_path, FakeMlflow(), FakeEvidence()) as platform:
        platform.apply()
        platform.champion()
        assert platform.http.get("/v1/ledger").json()["intact"] is True
        with any_database.write() as session:
            session.execute(text(tampering))
        assert platform.http.get("/v1/ledger").json()["intact"] is False


def test_ledger_is_paged_and_filtered_by_model(platform: Platform) -> None:
    for name in ("a", "b", "a2", "b2"):
        platform.apply(name)
    first = platform.http.get("/v1/ledger", params={"limit": 3}).json()
    rest = platform.http.get("/v1/ledger", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [entry["seq"] for entry in first["items"] + rest["items"]] == [1, 2, 3, 4]
    assert rest["next_cursor"] is None
    assert [entry["model"] for entry in platform.http.get("/v1/ledger?model=b").json()["items"]] == ["b"]
    assert first["items"][0]["actor"] == "anonymous"


def test_database_refuses_a_second_champion_and_a_second_rollout(any_database: Database, tmp_path: Path) -> None:
    upgrade(any_database, "modelyard_registry")
    with serving(any_database, tmp_path, FakeMlflow(), FakeEvidence()) as platform:
        platform.apply()
        champion = platform.champion()
        platform.better(champion)
        for wrong in (
            "UPDATE versions SET state = 'champion'",
            "UPDATE rollouts SET state = 'running'",
        ):
            with pytest.raises(IntegrityError), any_database.write() as session:
                session.execute(text(wrong))


def test_rollout_goes_on_after_the_registry_was_killed(tmp_path: Path) -> None:
    url, mlflow, evidence = f"sqlite:///{tmp_path / 'r.db'}", FakeMlflow(), FakeEvidence()
    database = Database(url)
    upgrade(database, "modelyard_registry")
    with serving(database, tmp_path, mlflow, evidence) as platform:
        platform.apply()
        candidate = platform.better(platform.champion())
        evidence.good(platform.routing()["revision"])
        platform.advance()
        before = platform.model()["rollout"]
        assert [step["outcome"] for step in before["steps"]] == ["passed", "running"]
    with serving(Database(url), tmp_path, mlflow, evidence) as restarted:
        assert restarted.model()["rollout"] == before
        restarted.roll_out()
        assert restarted.model()["champion"]["digest"] == candidate.digest
        assert restarted.http.get("/v1/ledger").json()["intact"] is True


def test_decision_that_was_overtaken_changes_nothing(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    revision = platform.routing()["revision"]
    fetch = platform.evidence.comparison

    def overtaken(model: str, asked: int) -> object:
        platform.http.post("/v1/models/m/rollout/abort", json={})
        return fetch(model, asked)

    platform.evidence.good(revision)
    platform.evidence.comparison = overtaken  # type: ignore[method-assign,assignment]
    assert platform.advance() == 0
    assert platform.model()["rollout"]["state"] == "aborted"


def test_wrong_database_revision_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'r.db'}")
    upgrade(database, "modelyard_registry")
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Exception, match="does not know"):
        upgrade(database, "modelyard_registry")
    database.close()
