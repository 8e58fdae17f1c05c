"""OpenAPI that knows the models: for each one that is served, its own paths with its own features and answers.

Made anew whenever it is asked for, since models come and go without a restart.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from modelyard_bundle.signature import LARGEST
from modelyard_contracts.bundle_v1 import Column, Signature
from modelyard_contracts.explanations_v1 import Background, ExplainResponse

from modelyard_inference.api.codecs import scoring
from modelyard_inference.api.codecs.labels import LONGEST_KEY
from modelyard_inference.api.codecs.tensors import DATATYPES, PLAIN_TYPES, metadata_datatype, output_tensors
from modelyard_inference.api.rest.error_documents import Responses, scoring_errors, v1_errors, v2_errors
from modelyard_inference.usecases.serving import ServedModels, Serving

__all__ = ["typed_openapi"]

Schema = dict[str, Any]

_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean"}
_LABELS: dict[str, str] = {"BOOL": "boolean", "INT64": "integer", "FP64": "number", "BYTES": "string", "FP32": "number"}
_TIMEOUT: Schema = {
    "type": ["integer", "null"],
    "minimum": 0,
    "description": "Microseconds that the answer may take; 0 leaves it to the server.",
}
_PLAIN_TYPE: Schema = {
    "enum": list(PLAIN_TYPES),
    "description": "What MLServer's clients say of values; no more is known.",
}
_OUTPUT_PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"binary_data": {"type": ["boolean", "null"]}, "content_type": _PLAIN_TYPE},
}
_BYTES: Schema = {"schema": {"type": "string", "format": "binary"}}
_YEAR_1, _YEAR_9999 = (end.replace(tzinfo=UTC).timestamp() for end in (datetime.min, datetime(9999, 12, 31)))
_TIMES: list[Schema] = [
    {"type": "string", "format": "date-time"},
    {"type": "number", "minimum": _YEAR_1, "maximum": _YEAR_9999},
]
_PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "event_time": {
            "description": "When it happened: RFC 3339, or seconds since 1970; one, or one a row.",
            "anyOf": [*_TIMES, {"type": "array", "items": {"anyOf": _TIMES}}, {"type": "null"}],
        },
        "log": {"type": "boolean", "default": True, "description": "Whether it is logged; false is for services."},
        "routing_key": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": LONGEST_KEY,
            "pattern": r"^[^\u0000]*$",
            "description": "Requests with one key go to one version during a rollout.",
        },
        "timeout": _TIMEOUT,
    },
}


def typed_openapi(app: FastAPI, served: ServedModels) -> Callable[[], Schema]:
    """Return what makes the document: the endpoints of the server, and those of each model that it serves."""
    untyped = app.openapi

    def document() -> Schema:
        base = untyped()
        found = {**base, "paths": dict(base["paths"]), "components": dict(base.get("components", {}))}
        schemas = dict(found["components"].get("schemas", {}))
        for serving in served.all():
            schemas |= _schemas(serving)
            found["paths"] |= _paths(serving.routing.model, serving.champion.signature)
        found["components"]["schemas"] = schemas
        return found

    return document


def _paths(model: str, signature: Signature) -> Schema:
    infer = "infer", "InferRequest", "InferResponse", "open inference"
    invocations = "invocations", "ScoringRequest", "ScoringResponse", "mlflow scoring"
    predict = "predict", "PredictRequest", "PredictResponse", "v1"
    explain = "explain", "ExplainRequest", "ExplainResponse", "v1"
    inferred = _operation(model, *infer, v2_errors())
    inferred["post"]["responses"]["200"]["content"] |= {"application/octet-stream": _BYTES}
    scored = _operation(model, *invocations, scoring_errors())
    scored["post"]["requestBody"]["content"] |= {scoring.CSV: _csv(signature), **dict.fromkeys(scoring.TABLES, _BYTES)}
    scored["post"]["responses"]["200"]["content"] |= {scoring.ARROW_STREAM: _BYTES}
    return {
        f"/v2/models/{model}/infer": inferred,
        f"/models/{model}/invocations": scored,
        f"/v1/models/{model}:predict": _operation(model, *predict, v1_errors()),
        f"/v1/models/{model}:explain": _operation(model, *explain, v1_errors()),
    }


def _operation(model: str, verb: str, request: str, response: str, tag: str, errors: Responses) -> Schema:
    def content(name: str) -> Schema:
        return {"application/json": {"schema": {"$ref": _ref(model, name)}}}

    return {
        "post": {
            "tags": [tag],
            "summary": f"Ask {model}",
            "operationId": f"{verb}_{model}",
            "requestBody": {"required": True, "content": content(request)},
            "responses": {
                "200": {"description": "The answers, in the order of the rows.", "content": content(response)},
                "400": errors["default"] | {"description": "The request is wrong; says which field."},
                "429": errors["default"] | {"description": "Too many requests at once."},
                "503": errors["default"] | {"description": "The model is not ready."},
                "504": errors["default"] | {"description": "It was not answered in time."},
                **errors,
            },
        }
    }


def _schemas(serving: Serving) -> Schema:
    model, signature = serving.routing.model, serving.champion.signature
    row: Schema = {"$ref": _ref(model, "Row")}
    outputs = {one.name: one for one in output_tensors(signature)}
    label: Schema = {"type": _LABELS[outputs["predict"].datatype]}
    if signature.classes:
        label["enum"] = list(signature.classes)
    named = {
        "Row": _row(signature),
        "InferRequest": _infer_request(signature),
        "InferResponse": _object(
            model_name={"const": model},
            model_version={"type": "string"},
            id={"type": "string"},
            outputs={
                "type": "array",
                "items": {"anyOf": [_output(one.name, one.datatype) for one in outputs.values()]},
            },
        ),
        "ScoringRequest": _scoring_request(signature),
        "ScoringResponse": _object(predictions={"type": "array", "items": label}),
        "PredictRequest": _v1_request(signature, row, _PARAMETERS),
        "PredictResponse": {
            "description": "Answers to instances are predictions, answers to inputs are outputs.",
            "oneOf": [_object(**{name: {"type": "array", "items": label}}) for name in ("predictions", "outputs")],
        },
    }
    timeout = {"type": "object", "additionalProperties": False, "properties": {"timeout": _TIMEOUT}}
    named |= {
        "ExplainRequest": _v1_request(signature, row, timeout),
        "ExplainResponse": _explain_response(signature),
    }
    return {f"{model}.{name}": schema for name, schema in named.items()}


def _v1_request(signature: Signature, row: Schema, parameters: Schema) -> Schema:
    rows, columns = _rows(signature, row), _columns(signature)
    example = _example(signature)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "instances": {"anyOf": rows},
            "inputs": {"anyOf": [columns, *rows]},
            "parameters": _or_null(parameters),
            "signature_name": {"type": ["string", "null"]},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "examples": [{"instances": [example]}, {"inputs": {name: [value] for name, value in example.items()}}],
    }


def _explain_response(signature: Signature) -> Schema:
    """Return the schema of the answer, with this model's features where the general one has any."""
    schema = ExplainResponse.model_json_schema(ref_template="{model}")
    row: Schema = schema.pop("$defs")["RowExplanation"]
    features = _object(**{column.name: {"type": "number"} for column in signature.features})
    row["properties"] |= {
        "contributions": {**features, "description": "Feature to its Shapley value."},
        "standard_errors": {"anyOf": [features, {"type": "null"}]},
    }
    schema["properties"]["explanations"] = {"type": "array", "items": row}
    schema["properties"]["background"] = Background.model_json_schema()
    return schema


def _row(signature: Signature) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {column.name: _value(column) for column in signature.features},
        "required": [column.name for column in signature.features if column.required],
        "examples": [_example(signature)],
    }


def _value(column: Column) -> Schema:
    kinds = [_TYPES.get(column.type, "string"), *(["integer"] if column.type == "category" else [])]
    schema: Schema = {"type": [*kinds, *([] if column.required else ["null"])]}
    if column.type == "number":
        schema |= {"minimum": -LARGEST, "maximum": LARGEST}
    if column.categories:
        schema["description"] = f"In training: {', '.join(map(str, column.categories[:20]))}."
    elif column.min is not None and column.max is not None:
        schema["description"] = f"In training: {column.min:g} to {column.max:g}."
    return schema


def _infer_request(signature: Signature) -> Schema:
    tensors = [_tensor(column) for column in signature.features]
    example = _example(signature)
    inputs = [
        {"name": column.name, "datatype": metadata_datatype(column), "shape": [1], "data": [example[column.name]]}
        for column in signature.features
    ]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": _or_null(
                {
                    **_PARAMETERS,
                    "additionalProperties": {
                        "description": "What Triton hands to a model; none here reads it. A name like one of ours is"
                        " taken for a misspelling, and refused."
                    },
                    "properties": {
                        **_PARAMETERS["properties"],
                        "binary_data_output": {"type": "boolean"},
                        "content_type": _PLAIN_TYPE,
                    },
                }
            ),
            "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": [*tensors, _matrix()]}},
            "outputs": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": [one.name for one in output_tensors(signature)]},
                        "parameters": _or_null(_OUTPUT_PARAMETERS),
                    },
                },
            },
        },
        "examples": [{"inputs": inputs}],
    }


def _tensor(column: Column) -> Schema:
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": column.name},
            "datatype": {"enum": list(DATATYPES), "examples": [metadata_datatype(column)]},
            "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
            "data": {"type": "array", "items": {"anyOf": [_value(column), {"type": "array", "items": _value(column)}]}},
        },
    }


def _matrix() -> Schema:
    return {
        "type": "object",
        "description": "All numeric features at once, in the order of the model's inputs.",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": list(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "data": {"type": "array"},
        },
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _rows(signature: Signature, row: Schema) -> list[Schema]:
    """Return the forms of rows that TensorFlow Serving has: by name, by position, and one feature by itself."""
    values = [_value(column) for column in signature.features]
    width = len(values)
    by_position = {"type": "array", "prefixItems": values, "minItems": width, "maxItems": width}
    return [_list(one) for one in (row, by_position, *(values if width == 1 else []))]


def _columns(signature: Signature) -> Schema:
    """Return its form of columns, all of one length; one value stands for a row."""
    columns: Schema = {}
    for column in signature.features:
        value = _value(column)
        columns[column.name] = {"anyOf": [value, _list(value), _list({**_list(value), "maxItems": 1})]}
    return {
        "type": "object",
        "description": "Columns, all of one length.",
        "additionalProperties": False,
        "properties": columns,
        "required": [column.name for column in signature.features if column.required],
    }


def _csv(signature: Signature) -> Schema:
    """Return CSV: a header of features, then rows; an empty field is missing."""
    lines = io.StringIO()
    rows = csv.DictWriter(lines, [column.name for column in signature.features], lineterminator="\n")
    rows.writeheader()
    rows.writerow(_example(signature))
    return {"schema": {"type": "string"}, "example": lines.getvalue()}


def _scoring_request(signature: Signature) -> Schema:
    """Return MLflow's forms; what is neither a feature nor known by name means nothing in them."""
    row = _open(_row(signature))
    loose: Schema = {"anyOf": [_open(_columns(signature)), *_rows(signature, row)]}
    split = {
        "type": "object",
        "required": ["data"],
        "additionalProperties": False,
        "properties": {
            "columns": {"type": ["array", "null"], "items": {"type": "string"}, "uniqueItems": True},
            "index": {"type": ["array", "null"]},
            "data": {"type": "array", "items": {"type": "array"}},
        },
    }
    forms: Schema = {
        "dataframe_split": split,
        "dataframe_records": _list(row),
        "instances": loose,
        "inputs": loose,
    }
    return {
        "type": "object",
        "properties": {**forms, "params": _or_null(_open(_PARAMETERS))},
        "oneOf": [{"required": [name]} for name in forms],
        "examples": [{"dataframe_records": [_example(signature)]}],
    }


def _output(name: str, datatype: str) -> Schema:
    return _object(
        name={"const": name},
        datatype={"const": datatype},
        shape={"type": "array", "items": {"type": "integer"}},
        data={"type": "array", "items": {"type": _LABELS[datatype]}},
    )


def _open(schema: Schema) -> Schema:
    """Return the schema of an object in which anything else may be, and means nothing."""
    return {**schema, "additionalProperties": True}


def _or_null(schema: Schema) -> Schema:
    """Return the schema of what may be left out: null means that it is."""
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _example(signature: Signature) -> dict[str, Any]:
    return {column.name: _example_of(column) for column in signature.features}


def _example_of(column: Column) -> Any:
    if column.type == "boolean":
        return True
    if column.type == "category":
        return column.categories[0] if column.categories else "a"
    middle = (column.min + column.max) / 2 if column.min is not None and column.max is not None else 0.0
    return round(middle) if column.type == "integer" else middle


def _ref(model: str, name: str) -> str:
    return f"#/components/schemas/{model}.{name}"
