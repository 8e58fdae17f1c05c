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
def test_the_examples_of_each_protocol_are_valid_and_are_answered_as_described(
    shared: httpx.Client, document: dict[str, Any], path: str, name: str
) -> None:
    examples = document["components"]["schemas"][f"power.{name}"]["examples"]

    answered = [answers_as_described(shared, document, path, name, example) for example in examples]

    assert answered and all(answered)


def answers_as_described(
    http: httpx.Client, document: dict[str, Any], path: str, name: str, body: dict[str, Any]
) -> bool:
    """Return whether a body fits the document, and its answer too."""
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    answer = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    return (
        validator(document, f"power.{name}").is_valid(body)
        and validator(document, answer.rpartition("/")[2]).is_valid(response.json())
        and answer == f"#/components/schemas/power.{name.replace('Request', 'Response')}"
    )


ROW = list(GOOD_ROW.values())
FORMS: dict[str, dict[str, Any]] = {
    "rows": {"instances": [GOOD_ROW, {"load": 1, "day": "mon"}]},
    "rows by position": {"instances": [ROW, [-3, None, "tue"]]},
    "rows as inputs": {"inputs": [GOOD_ROW]},
    "rows by position as inputs": {"inputs": [ROW]},
    "columns": {"inputs": {"load": [0.7, -3], "price": [0.2, None], "day": ["mon", "tue"]}},
    "columns of lists of one": {"inputs": {"load": [[0.7], [-3]], "day": ["mon", "tue"]}},
    "one value a column": {"inputs": GOOD_ROW},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize(("path", "name"), list(PATHS.items())[1:], ids=list(PATHS.values())[1:])
def test_the_document_has_every_form_that_is_taken(
    shared: httpx.Client, document: dict[str, Any], path: str, name: str, form: dict[str, Any]
) -> None:
    assert answers_as_described(shared, document, path, name, form)


@pytest.mark.parametrize(
    "form",
    [
        {"inputs": {"load": ["x"], "day": ["mon"]}},
        {"inputs": {"load": [], "day": []}},
        {"inputs": {"load": [0.7]}},
        {"inputs": [[0.7, 0.2]]},
        {"inputs": []},
        {"instances": [GOOD_ROW], "inputs": [GOOD_ROW]},
        {"instances": [0.7]},
        {},
    ],
    ids=["text", "no rows", "one missing", "too short", "nothing", "both", "no row", "neither"],
)
@pytest.mark.parametrize(("path", "name"), list(PATHS.items())[1:], ids=list(PATHS.values())[1:])
def test_forms_that_are_refused_do_not_fit_the_document_either(
    shared: httpx.Client, document: dict[str, Any], path: str, name: str, form: dict[str, Any]
) -> None:
    assert shared.post(path, json=form).status_code == 400
    assert not validator(document, f"power.{name}").is_valid(form)


EXTRAS: list[dict[str, Any]] = [
    {"inputs": {**GOOD_ROW, "colour": 1}},
    {"instances": [{**GOOD_ROW, "colour": 1}]},
    {"inputs": [GOOD_ROW], "client_request_id": "a"},
    {"inputs": [GOOD_ROW], "params": {"temperature": 0.5}},
    {"dataframe_records": [{**GOOD_ROW, "colour": {"a": [1]}}]},
    {"dataframe_split": {"columns": [*GOOD_ROW, "colour"], "data": [[*ROW, None]]}},
]


@pytest.mark.parametrize("form", EXTRAS, ids=str)
def test_what_means_nothing_is_in_the_document_where_it_is_taken(
    shared: httpx.Client, document: dict[str, Any], form: dict[str, Any]
) -> None:
    by_v1 = {"parameters" if name == "params" else name: value for name, value in form.items()}

    assert answers_as_described(shared, document, "/models/power/invocations", "ScoringRequest", form)
    assert shared.post("/v1/models/power:predict", json=by_v1).status_code == 400
    assert not validator(document, "power.PredictRequest").is_valid(by_v1)


def test_the_document_has_every_media_type_that_invocations_take_and_give(
    shared: httpx.Client, document: dict[str, Any]
) -> None:
    path = "/models/power/invocations"
    operation = document["paths"][path]["post"]
    taken, given = operation["requestBody"]["content"], operation["responses"]["200"]["content"]
    example = taken["text/csv"]["example"]

    refused = shared.post(path, content=b"", headers={"content-type": "text/html"})
    from_csv = shared.post(path, content=example, headers={"content-type": "text/csv"})
    gives = {
        kind: shared.post(path, content=example, headers={"content-type": "text/csv", "accept": kind}) for kind in given
    }

    assert refused.status_code == 415 and refused.text.endswith(f"Types: {sorted(taken)}.")
    assert validator(document, "power.ScoringResponse").is_valid(from_csv.raise_for_status().json())
    assert {kind: answer.headers["content-type"] for kind, answer in gives.items()} == {kind: kind for kind in given}
    assert len(given) == 2


PLAIN = {"parameters": {"content_type": "np"}}
OTHER = {"parameters": {"content_type": "base64"}}


def test_what_values_are_said_to_be_is_in_the_document(shared: httpx.Client, document: dict[str, Any]) -> None:
    [example] = document["components"]["schemas"]["power.InferRequest"]["examples"]
    output = {"name": "predict"}
    bodies = [{**example, **said, "outputs": [output | of]} for said in (PLAIN, OTHER) for of in (PLAIN, OTHER)]

    fits = [validator(document, "power.InferRequest").is_valid(body) for body in bodies]

    assert fits == [shared.post("/v2/models/power/infer", json=body).status_code == 200 for body in bodies]
    assert fits == [True, False, False, False]


def test_custom_parameters_fit_the_document_where_they_are_taken(
    shared: httpx.Client, document: dict[str, Any]
) -> None:
    [example] = document["components"]["schemas"]["power.InferRequest"]["examples"]
    [instances, _] = document["components"]["schemas"]["power.PredictRequest"]["examples"]
    custom = {"parameters": {"priority": 1, "x": [1]}}

    for path, name, body in (
        ("/v2/models/power/infer", "InferRequest", example | custom),
        ("/v1/models/power:predict", "PredictRequest", instances | custom),
    ):
        fits = validator(document, f"power.{name}").is_valid(body)
        assert fits == (shared.post(path, json=body).status_code == 200) == (name == "InferRequest")


def test_the_document_knows_that_outputs_may_be_binary(shared: httpx.Client, document: dict[str, Any]) -> None:
    [example] = document["components"]["schemas"]["power.InferRequest"]["examples"]
    binary = {**example, "outputs": [{"name": "predict", "parameters": {"binary_data": True}}]}
    given = document["paths"]["/v2/models/power/infer"]["post"]["responses"]["200"]["content"]

    kinds = {shared.post("/v2/models/power/infer", json=body).headers["content-type"] for body in (example, binary)}

    assert validator(document, "power.InferRequest").is_valid(binary)
    assert kinds == set(given)


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
