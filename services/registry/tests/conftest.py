from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import FakeClock
from modelyard_common.testing.databases import any_database, any_database_url, postgres_server  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))

from modelyard_registry.settings import RegistrySettings
from modelyard_registry.usecases.advance_rollouts import AdvanceRollouts
from modelyard_registry.usecases.mirror_models import MirrorModels
from modelyard_registry.wiring import build
from registry_fakes import FakeBundle, FakeEvidence, FakeMlflow, document, evaluation, make_bundle, role


@dataclass
class Platform:
    """A registry with its surroundings, whose background work happens when a test says so."""

    http: TestClient
    mlflow: FakeMlflow
    evidence: FakeEvidence
    clock: FakeClock
    advance: AdvanceRollouts
    mirror: MirrorModels
    settings: RegistrySettings

    def apply(self, name: str = "m", **changes: Any) -> dict[str, Any]:
        answer = self.http.put(f"/v1/models/{name}", json=document(name, **changes))
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def register(self, bundle: FakeBundle, judged: dict[str, Any] | None = None, name: str = "m") -> dict[str, Any]:
        body = {"digest": bundle.digest, "mlflow_run_id": self.mlflow.add_run(bundle), "run": "r", "evaluation": judged}
        answer = self.http.post(f"/v1/models/{name}/versions", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def champion(self, weight: str = "w1") -> FakeBundle:
        """Make a first champion."""
        bundle = make_bundle(weight=weight)
        view = self.register(bundle, evaluation("test", **{role("candidate", bundle): 0.7}))
        assert view["state"] == "champion", view
        return bundle

    def better(self, champion: FakeBundle, weight: str = "w2", by: float = 0.05, **others: float) -> FakeBundle:
        """Register a version that beats the champion on fresh rows."""
        bundle = make_bundle(weight=weight)
        scores = {role("candidate", bundle): 0.7 + by, role("champion", champion): 0.7, **others}
        self.register(bundle, evaluation(**scores))
        return bundle

    def model(self, name: str = "m") -> dict[str, Any]:
        return self.http.get(f"/v1/models/{name}").json()

    def routing(self, name: str = "m") -> dict[str, Any]:
        return self.http.get(f"/v1/models/{name}/routing").json()

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.http.get("/v1/ledger?limit=500").json()["items"]]

    def roll_out(self) -> None:
        """Give every step good evidence until the rollout is over."""
        while (self.model()["rollout"] or {}).get("state") == "running":
            self.evidence.good(self.routing()["revision"])
            assert self.advance() == 1


def make_platform(database: Database, folder: Path, mlflow: FakeMlflow, evidence: FakeEvidence) -> Platform:
    settings = RegistrySettings(data_dir=folder, rollout_interval_s=3600, mirror_interval_s=3600, watch_poll_s=0.02)
    clock = FakeClock()
    app = build(settings, database, clock=clock, http=mlflow.client(), evidence=evidence, background=False)
    state = app.state.registry
    return Platform(
        http=TestClient(app),
        mlflow=mlflow,
        evidence=evidence,
        clock=clock,
        advance=app.state.advance,
        mirror=app.state.mirror,
        settings=settings,
    )


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    upgrade(database, "modelyard_registry")
    made = make_platform(database, tmp_path, FakeMlflow(), FakeEvidence())
    with made.http:
        yield made


@pytest.fixture
def any_platform(any_database: Database, tmp_path: Path) -> Iterator[Platform]:  # noqa: F811
    upgrade(any_database, "modelyard_registry")
    made = make_platform(any_database, tmp_path, FakeMlflow(), FakeEvidence())
    with made.http:
        yield made
