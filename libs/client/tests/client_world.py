"""The services that a notebook talks to, as they are wired for real; only the registry and MLflow are small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard_common.auth.tokens import hash_token
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import running
from modelyard_drift.settings import DriftSettings
from modelyard_drift.usecases.ports import Policy
from modelyard_drift.wiring import build as build_drift
from modelyard_inference.wiring import build as build_inference

from services.drift.tests.drift_fakes import FakeRegistry as FakePolicies
from services.drift.tests.drift_fakes import FakeTraining, spec
from services.inference.tests.inference_fakes import FakeRegistry, Platform, eventually, make_bundle

TOKEN = "a-token-of-the-tests"
MODEL = "power"


@dataclass(frozen=True)
class World:
    """Where everything is."""

    inference_url: str
    drift_url: str
    registry_url: str
    token_file: Path
    digest: str


@contextmanager
def a_world(folder: Path) -> Iterator[World]:
    """Serve inference behind tokens, drift, and a small registry."""
    token_file, tokens_file = folder / "token", folder / "tokens"
    token_file.write_text(TOKEN + "\n")
    tokens_file.write_text(f"notebook client {hash_token(TOKEN)}\n")
    bundle = make_bundle(folder / "bundle", seed=1, model=MODEL)
    registry = FakeRegistry()
    registry.add(bundle)
    registry.route(MODEL, str(bundle.digest))
    with running(registry.app()) as registry_url, running(_drift(folder)) as drift_url:
        platform = Platform(registry, None, registry_url, drift_url, folder / "inference")  # type: ignore[arg-type]
        app = build_inference(platform.settings(auth="token", tokens_file=tokens_file))
        with running(app) as inference_url:
            eventually(lambda: app.state.health.report().ready)
            yield World(inference_url, drift_url, registry_url, token_file, str(bundle.digest))
        registry.ended = True


def _drift(folder: Path) -> object:
    database = Database(f"sqlite:///{folder / 'drift.db'}")
    upgrade(database, "modelyard_drift")
    policies = FakePolicies(known=[Policy(MODEL, spec(), "sha256:" + "0" * 64)])
    settings = DriftSettings(data_dir=folder)
    app = build_drift(settings, database, registry=policies, training=FakeTraining(), background=False)
    app.state.refresh()
    return app
