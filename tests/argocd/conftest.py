"""The repository as Argo CD's repo server has it, and its Helm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import kube_tools
import pytest

from tests.argocd.argo import ROOT, Checkout

# What the operator's tests see and say of a model is what Argo CD is to judge.
sys.path.insert(0, str(ROOT / "services/operator/tests"))


@pytest.fixture(scope="session")
def checkout(tools: kube_tools.KubeTools, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Read only; what a test changes it copies for itself."""
    return Checkout.make(tmp_path_factory.mktemp("checkout"), tools.helm4)


@pytest.fixture
def scratch(tools: kube_tools.KubeTools, tmp_path: Path) -> Iterator[Checkout]:
    """A checkout of this test's own, to be changed."""
    yield Checkout.make(tmp_path / "checkout", tools.helm4)
