"""What a test needs of the machine: without it the test is skipped with the reason.

Where MODELYARD_REQUIRE_CLUSTER is 1, as CI sets it, the skip is a failure, so that it never hides a broken cluster.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or the whole module that is being imported; fail it where CI insists."""
    if os.environ.get("MODELYARD_REQUIRE_CLUSTER") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def required_module(name: str, reason: str) -> ModuleType:
    """Import a package that not every platform has."""
    try:
        module: ModuleType = pytest.importorskip(name, reason=reason)
    except pytest.skip.Exception:
        unavailable(reason)
    return module


def kubeconfig() -> Path:
    """Return the file that names the cluster to test on."""
    if given := os.environ.get("KUBECONFIG"):
        return Path(given)
    unavailable("KUBECONFIG names no cluster")
