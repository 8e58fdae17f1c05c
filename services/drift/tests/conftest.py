"""Fixtures of drift's tests: a world over either database."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import FakeClock, running
from modelyard_common.testing.databases import *  # noqa: F403  # fixtures: both databases
from modelyard_drift.settings import DriftSettings
from modelyard_drift.wiring import build

sys.path.insert(0, str(Path(__file__).parent))

from drift_fakes import START, FakeRegistry, FakeTraining, World


def _world(stack: ExitStack, database: Database, folder: Path, settings: dict[str, Any]) -> World:
    upgrade(database, "modelyard_drift")
    registry, training = FakeRegistry(), FakeTraining()
    app = build(
        DriftSettings(data_dir=folder, **settings),
        database,
        clock=FakeClock(START),
        registry=registry,
        training=training,
        background=False,
    )
    client = stack.enter_context(httpx.Client(base_url=stack.enter_context(running(app)), trust_env=False))
    stop = threading.Event()
    app.state.refresh()
    return World(
        client=client,
        registry=registry,
        training=training,
        turn=lambda: app.state.turn(stop),
        refresh=app.state.refresh,
        fold_overdue=lambda: app.state.fold(stop, overdue=True),
        show_metrics=app.state.show,
        services=app.state.drift,
    )


@pytest.fixture
def make_world(any_database: Database, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world; the keyword arguments are settings."""
    with ExitStack() as stack:
        yield lambda **settings: _world(stack, any_database, tmp_path, settings)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world with its defaults."""
    return make_world()


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for tests that leave nothing in it, or do not look at what others left."""
    folder = tmp_path_factory.mktemp("shared")
    database = Database(f"sqlite:///{folder / 'test.db'}")
    with ExitStack() as stack:
        yield _world(stack, database, folder, {})
    database.close()
