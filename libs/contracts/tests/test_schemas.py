"""The schemas under goldens/ are what the shapes are, and the command that keeps them so tells how to mend them."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import jsonschema
import modelyard_contracts
import pytest
from modelyard_contracts.base import Request, View
from modelyard_contracts.schemas import MODULES, documents, main, shapes_of, stale
from pydantic import BaseModel

GOLDENS = Path(__file__).parent / "goldens"


def test_the_goldens_are_fresh() -> None:
    assert stale(GOLDENS) == [], "run `make fmt`, and look at the diff: the wire only grows"


def test_every_module_with_shapes_is_covered() -> None:
    modules = {
        name
        for _, name, _ in pkgutil.iter_modules(modelyard_contracts.__path__)
        if shapes_of(importlib.import_module(f"modelyard_contracts.{name}"))
    }

    assert modules - {"base"} == set(MODULES)


def test_writing_twice_writes_the_same() -> None:
    assert documents() == documents()


@pytest.mark.parametrize("name", MODULES)
def test_a_golden_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads((GOLDENS / f"{name}.json").read_text()))


def test_the_schema_of_the_manifest_takes_the_example_and_refuses_a_wrong_field(electricity: dict[str, Any]) -> None:
    schema = json.loads((GOLDENS / "managed_model_v1alpha1.json").read_text())
    gate = electricity["spec"]["gate"][1]
    gate["on"] = gate.pop(True)

    jsonschema.validate(electricity, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(electricity | {"spec": electricity["spec"] | {"tsak": 1}}, schema)


def test_check_names_stale_files_and_the_command_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    (tmp_path / "pages.json").write_text("{}")
    (tmp_path / "problem.json").unlink()
    (tmp_path / "older.json").write_text("{}")

    assert main(["--check", str(tmp_path)]) == 1

    said = capsys.readouterr().err
    assert "older.json, pages.json, problem.json" in said
    assert "make fmt" in said
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def all_shapes() -> list[type[BaseModel]]:
    return [shape for name in MODULES for shape in shapes_of(importlib.import_module(f"modelyard_contracts.{name}"))]


@pytest.mark.parametrize("shape", all_shapes(), ids=lambda shape: shape.__name__)
def test_a_shape_is_frozen_documented_and_strict_where_people_write(shape: type[BaseModel]) -> None:
    assert shape.model_config["frozen"]
    assert (shape.__doc__ or "").strip()
    assert shape.model_config["allow_inf_nan"] is False
    if issubclass(shape, Request):
        assert shape.model_config["extra"] == "forbid"
    if issubclass(shape, View):
        assert shape.model_config["extra"] == "ignore"


def test_names_of_shapes_tell_the_direction() -> None:
    for shape in all_shapes():
        if shape.__name__.endswith("View"):
            assert issubclass(shape, View), shape
        if shape.__name__.endswith(("Request", "Response")) and shape.__module__.endswith("_v1"):
            assert issubclass(shape, Request if shape.__name__.endswith("Request") else View), shape
