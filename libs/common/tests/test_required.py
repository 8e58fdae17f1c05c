"""What is missing is skipped on a machine of one's own, and fails where CI insists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from modelyard_common.testing.required import kubeconfig, required_module, unavailable

MISSING: dict[str, Callable[[], object]] = {
    "no engine": lambda: unavailable("no engine"),
    "no such package": lambda: required_module("modelyard_nowhere", "no such package"),
    "KUBECONFIG names no cluster": kubeconfig,
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.mark.parametrize("reason", MISSING)
@pytest.mark.parametrize("setting", [None, "0"])
def test_what_is_missing_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, reason: str, setting: str | None
) -> None:
    monkeypatch.delenv("MODELYARD_REQUIRE_CLUSTER", raising=False)
    if setting is not None:
        monkeypatch.setenv("MODELYARD_REQUIRE_CLUSTER", setting)

    with pytest.raises(pytest.skip.Exception, match=reason) as skipped:
        MISSING[reason]()

    assert skipped.value.allow_module_level


@pytest.mark.parametrize("reason", MISSING)
def test_what_is_missing_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    monkeypatch.setenv("MODELYARD_REQUIRE_CLUSTER", "1")

    with pytest.raises(pytest.fail.Exception, match=reason):
        MISSING[reason]()


def test_what_is_there_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_REQUIRE_CLUSTER", "1")
    monkeypatch.setenv("KUBECONFIG", "/somewhere/config")

    assert kubeconfig() == Path("/somewhere/config")
    assert required_module("pytest", "no pytest") is pytest
