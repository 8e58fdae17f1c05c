"""Documents that were once on the wire are read for ever: no field lost, none newly required, no value forgotten.

``documents/<module>.json`` holds, for every shape, one document with all of its fields, one with the required ones,
and one for each further value of an enumeration. They are never changed; a new shape or field adds documents.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from modelyard_contracts.base import Request, View
from modelyard_contracts.schemas import MODULES, shapes_of
from pydantic import BaseModel, ValidationError

DOCUMENTS = Path(__file__).parent / "documents"


def cases() -> list[Any]:
    found = []
    for name in MODULES:
        module = importlib.import_module(f"modelyard_contracts.{name}")
        for shape, documents in json.loads((DOCUMENTS / f"{name}.json").read_text()).items():
            for number, document in enumerate(documents):
                found.append(pytest.param(getattr(module, shape), document, id=f"{name}.{shape}.{number}"))
    return found


def assert_kept(sent: Any, kept: Any, path: str = "") -> None:
    """Assert that everything sent is in what was kept; what was kept may have more (defaults)."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            assert key in kept, f"{path}.{key} was lost"
            assert_kept(value, kept[key], f"{path}.{key}")
    elif isinstance(sent, list):
        assert len(sent) == len(kept), path
        for index, value in enumerate(sent):
            assert_kept(value, kept[index], f"{path}[{index}]")
    else:
        assert sent == kept, path


@pytest.mark.parametrize(("shape", "document"), cases())
def test_an_old_document_is_read_and_nothing_of_it_is_lost(shape: type[BaseModel], document: dict[str, Any]) -> None:
    read = shape.model_validate_json(json.dumps(document))

    assert_kept(document, json.loads(read.model_dump_json(by_alias=True)))
    assert shape.model_validate_json(read.model_dump_json(by_alias=True)) == read


@pytest.mark.parametrize("name", MODULES)
def test_every_shape_and_every_field_has_a_document(name: str) -> None:
    documents = json.loads((DOCUMENTS / f"{name}.json").read_text())
    for shape in shapes_of(importlib.import_module(f"modelyard_contracts.{name}")):
        assert shape.__name__ in documents, f"add a document of {shape.__name__} to documents/{name}.json"
        written = {key for document in documents[shape.__name__] for key in document}
        fields = {field.alias or key for key, field in shape.model_fields.items()}
        assert fields <= written, f"add a document of {shape.__name__} with {sorted(fields - written)}"


@pytest.mark.parametrize(("shape", "document"), cases())
def test_a_newer_writers_field_is_ignored_in_answers_and_refused_in_requests(
    shape: type[BaseModel], document: dict[str, Any]
) -> None:
    newer = json.dumps(document | {"of_a_later_release": 1})

    if issubclass(shape, View):
        assert shape.model_validate_json(newer) == shape.model_validate_json(json.dumps(document))
    elif issubclass(shape, Request):
        with pytest.raises(ValidationError, match="of_a_later_release"):
            shape.model_validate_json(newer)
