"""Node's tools, and a copy of the checkout in a repository of its own, as a runner has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.ci import node_tools
from tests.ci.checkout import Checkout
from tests.ci.pipelines import ROOT


@pytest.fixture(scope="session")
def node_modules() -> Path:
    try:
        return node_tools.ensure()
    except node_tools.NodeToolsError as error:
        pytest.skip(f"the tools on Node cannot be had: {error}")


@pytest.fixture(scope="session")
def checkout(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    try:
        return Checkout.make(tmp_path_factory.mktemp("runner"), node_modules)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr) from error
