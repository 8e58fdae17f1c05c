"""Real services for the façade: inference with a bundle, and drift that gets its payloads; and peers that misbehave."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from modelyard_common.testing import running

from libs.common.tests.peer_app import Answer, Peer

sys.path.insert(0, str(Path(__file__).parent))

from client_world import World, a_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a platform in which one model, ``power``, is served and watched."""
    with a_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def peer() -> Iterator[Callable[..., tuple[str, Peer]]]:
    """Serve a peer that answers as told; give its URL and itself."""
    with ExitStack() as stack:

        def make(*answers: Answer) -> tuple[str, Peer]:
            made = Peer(*answers)
            return stack.enter_context(running(made)), made

        yield make
