"""Every formula of this library comes with an example, and every example is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import modelyard_stats
import pytest

MODULES = [module.name for module in pkgutil.iter_modules(modelyard_stats.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_say_what_it_does(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"modelyard_stats.{name}"))

    assert result.attempted > 0, f"modelyard_stats.{name} has no example"
    assert result.failed == 0


@pytest.mark.parametrize("name", ["chi_square", "fdr", "intervals", "ks", "psi", "metrics"])
def test_the_docstring_of_a_formula_names_its_paper(name: str) -> None:
    module = importlib.import_module(f"modelyard_stats.{name}")
    text = " ".join([module.__doc__ or "", *(function.__doc__ or "" for function in public(module))])

    assert any(str(year) in text for year in range(1890, 2030)), f"{name} names no paper"


def public(module: object) -> list[object]:
    return [getattr(module, name) for name in module.__all__]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_says_what_it_is(name: str) -> None:
    module = importlib.import_module(f"modelyard_stats.{name}")

    assert [item for item in public(module) if not (getattr(item, "__doc__", "") or "").strip()] == []
