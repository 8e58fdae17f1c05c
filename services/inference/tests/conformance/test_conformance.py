"""Real clients against the real process; and the page that says what they see says what they see."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard_bundle.packaging import Packed

sys.path.insert(0, str(Path(__file__).parent))

from matrix import CLIENTS, DOCUMENT, NotInstalled, Results, Stage, a_stage, calls_of, rendered

_results: dict[str, Results] = {}
"""Of this run; the last test compares them with the page."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("conformance"), bundles[0]) as found:
        yield found


@pytest.mark.timeout(420)  # an environment is made the first time
@pytest.mark.parametrize("name", CLIENTS)
def test_every_call_of_a_client_passes(stage: Stage, name: str) -> None:
    try:
        _results[name] = calls_of(CLIENTS[name], stage)
    except NotInstalled as exc:
        pytest.skip(f"the environment of {name} cannot be made here: {exc}")

    assert {call: why for call, why in _results[name].items() if why is not None} == {}
    assert len(_results[name]) >= 5


def test_the_page_says_what_the_clients_saw() -> None:
    if missing := CLIENTS.keys() - _results.keys():
        pytest.skip(f"these clients were not asked in this run: {', '.join(sorted(missing))}")

    assert DOCUMENT.read_text() == rendered(_results), "write it: python services/inference/tests/conformance"
