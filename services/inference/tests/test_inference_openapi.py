"""The document under /docs: every model with its own features and answers, and what it says is what is served."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from inference_fakes import GOOD_ROW, Platform, a_platform, a_server, eventually
from jsonschema import Draft202012Validator
from modelyard_bundle.packaging import Packed


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]) -> Iterator[httpx.Client]:
    """Give a server that no test changes."""
    with a_platform(tmp_path_factory.mktemp("openapi")) as platform, a_server(platform, bundles) as http:
        yield http


@pytest.fixture
def document(shared: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = shared.get("/openapi.json").raise_for_status().json()
    return found


def validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", **copy.deepcopy(document)})


PATHS = {
    "/v2/models/power/infer": "InferRequest",
    "/models/power/invocations": "ScoringRequest",
    "/v1/models/power:predict": "PredictRequest",
    "/v1/models/power:explain": "ExplainRequest",
}


@pytest.mark.parametrize(("path", "name"), PATHS.items())
def test_the_example_of_each_protocol_is_valid_and_is_answered_as_described(
    shared: httpx.Client, document: dict[str, Any], path: str, name: str
) -> None:
    [example] = document["components"]["schemas"][f"power.{name}"]["examples"]

    response = shared.post(path, json=example)

    assert list(validator(document, f"power.{name}").iter_errors(example)) == []
    assert response.status_code == 200, response.text
    answer = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert list(validator(document, answer.rpartition("/")[2]).iter_errors(response.json())) == []


@pytest.mark.parametrize(
    "row",
    [{"load": "x"}, {"price": 1.0}, {**GOOD_ROW, "colour": 1}, {**GOOD_ROW, "load": None}],
    ids=["text for a number", "one missing", "one too many", "null for a required one"],
)
def test_rows_that_are_refused_do_not_fit_the_document_either(
    shared: httpx.Client, document: dict[str, Any], row: dict[str, Any]
) -> None:
    response = shared.post("/v1/models/power:predict", json={"instances": [row]})

    assert response.status_code == 400
    assert list(validator(document, "power.Row").iter_errors(row))


def test_a_row_says_what_the_signature_says(document: dict[str, Any]) -> None:
    row = document["components"]["schemas"]["power.Row"]

    assert row["required"] == ["load", "day"]
    assert row["properties"]["price"]["type"] == ["number", "null"]
    assert document["components"]["schemas"]["power.ScoringResponse"]["properties"]["predictions"]["items"] == {
        "type": "integer",
        "enum": [0, 1],
    }


def test_models_come_and_go_without_a_restart(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        before = http.get("/openapi.json").json()["paths"]
        platform.registry.route("other", str(bundles[1].digest))
        eventually(lambda: "/v2/models/other/infer" in http.get("/openapi.json").json()["paths"])
        http.post("/v2/repository/models/power/unload").raise_for_status()
        after = http.get("/openapi.json").json()["paths"]

    assert "/v2/models/power/infer" in before and "/v2/models/other/infer" not in before
    assert "/v2/models/power/infer" not in after
    assert "/v2/models/{model}" in after
