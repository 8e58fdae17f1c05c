"""What the package offers is there under its name, and nothing is loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import modelyard_client
import pytest


@pytest.mark.parametrize("name", modelyard_client.__all__)
def test_every_name_is_a_class_of_this_package(name: str) -> None:
    found = getattr(modelyard_client, name)

    assert isinstance(found, type)
    assert found.__name__ == name
    assert found.__module__.startswith("modelyard_client.")
    assert name in dir(modelyard_client)


def test_nothing_else_is_there() -> None:
    assert set(modelyard_client._HOMES) == set(modelyard_client.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        modelyard_client.Nobody  # noqa: B018


def test_one_client_does_not_load_the_others() -> None:
    asks = "import sys; from modelyard_client import DriftClient; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout.split()

    assert "modelyard_client.drift" in loaded
    assert {"modelyard_client.inference", "modelyard_client.training", "modelyard_client.modelyard"}.isdisjoint(loaded)
