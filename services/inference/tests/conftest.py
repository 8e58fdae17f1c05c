"""What the tests of inference share: two bundles, and a platform of fakes on real sockets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard_bundle.packaging import Packed

sys.path.insert(0, str(Path(__file__).parent))

from inference_fakes import Platform, a_platform, make_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, Packed]:
    """Give two bundles that answer most rows differently."""
    root = tmp_path_factory.mktemp("bundles")
    return make_bundle(root / "one", seed=1), make_bundle(root / "two", seed=2)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """Give fakes of registry and drift on real sockets."""
    with a_platform(tmp_path / "data") as made:
        yield made
