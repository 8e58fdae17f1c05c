"""Fixtures of drift's tests: a world over either database."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import FakeClock
from modelyard_common.testing.databases import *  # noqa: F403  # fixtures: both databases
from modelyard_common.testing.server import running
from modelyard_drift.settings import DriftSettings
from modelyard_drift.wiring import build

sys.path.insert(0, str(Path(__file__).parent))

from drift_fakes import START, FakeRegistry, FakeTraining, World

# A busy machine is slow now and then; the suite's own timeout bounds a test.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def make_world(any_database: Database, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world; the keyword arguments are settings."""
    with ExitStack() as stack:

        def make(**settings: Any) -> World:
            upgrade(any_database, "modelyard_drift")
            registry, training = FakeRegistry(), FakeTraining()
            app = build(
                DriftSettings(data_dir=tmp_path, **settings),
                any_database,
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

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world with its defaults."""
    return make_world()
