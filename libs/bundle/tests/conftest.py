"""What the tests of bundles share: one good bundle, and copies of it to break."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from modelyard_bundle.packaging import Packed

sys.path.insert(0, str(Path(__file__).parent))

from bundle_makers import classifier_bundle


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Give a bundle that nobody may touch: a classifier of numbers, missing ones among them, and a category."""
    return classifier_bundle(tmp_path_factory.mktemp("bundles") / "good")


@pytest.fixture
def copy(good: Packed, tmp_path: Path) -> Callable[[], Path]:
    """Give what makes a copy of the good bundle."""

    def make() -> Path:
        return Path(shutil.copytree(good.folder, tmp_path / "copy"))

    return make
