"""Fixtures of the service kit's tests."""

from __future__ import annotations

import sys
from pathlib import Path

from modelyard_common.testing.databases import *  # noqa: F403

sys.path.insert(0, str(Path(__file__).parent))
