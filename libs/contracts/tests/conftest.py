"""The manifest of the design, as people write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFEST = Path(__file__).parent / "manifests" / "electricity.yaml"


@pytest.fixture
def electricity() -> dict[str, Any]:
    """Give the decoded manifest; each test gets its own."""
    document: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    return document
