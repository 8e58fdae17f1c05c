"""Inference's client: rows in, predictions out, over the Open Inference Protocol V2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from modelyard_common.errors import Invalid, ModelyardError, NotFound, Unavailable
from modelyard_contracts.explanations_v1 import ExplainResponse
from modelyard_contracts.open_inference import IndexEntry, InferResponse, ModelMetadata
from pydantic import BaseModel, RootModel

from modelyard_client.base import ApiClient

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["InferenceClient", "LoadedVersion", "Prediction", "Scored", "tensors"]

Row = Mapping[str, Any]
_ARROW = "application/vnd.apache.arrow.stream"
_EXPLAIN_TIMEOUT_S = 30.0
_SCORE_TIMEOUT_S = 60.0
"""Longer than a server takes for any request, with the way there and back."""
_PLAIN = (str, int, bool, float, type(None))


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one request."""

    id: str
    """Row i of the answer is ``<id>/<i>``: what a label refers to."""
    model: str
    version: str
    predictions: list[Any]
    """One a row."""
    probabilities: list[list[float]] | None
    """One list a row, in the order of the model's classes; None unless it is a classifier."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to one table."""

    id: str
    """Row i of the answer is ``<id>/<i>``."""
    version: str
    """The digest of the version that answered."""
    table: bytes
    """An Arrow stream: ``predictions``; ``probability_<class>`` of a classifier, ``score`` of an anomaly detector."""


def tensors(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as V2 input tensors, one a feature, shape [n].

    Raises:
        Invalid: there are no rows, they have different features, or values that JSON has not.
    """
    if not rows:
        raise Invalid("there are no rows to predict")
    names = list(rows[0])
    for number, row in enumerate(rows):
        if set(row) != set(names):
            raise Invalid(f"row {number} has other features than row 0")
    return [
        _tensor(name, [_plain(row[name], f"[{number}].{name}") for number, row in enumerate(rows)]) for name in names
    ]


def _tensor(name: str, values: list[Any]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        datatype = "BOOL"
    elif known and all(isinstance(value, str) for value in known):
        datatype = "BYTES"
    elif known and all(isinstance(value, int) and not isinstance(value, bool) for value in known):
        datatype = "INT64"
    else:
        datatype = "FP64"
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}


class _Index(RootModel[list[IndexEntry]]):
    """What a server has loaded."""


class LoadedVersion(BaseModel):
    """A version that one server has loaded."""

    number: int
    digest: str
    role: Literal["champion", "candidate", "kept"]


class _Served(BaseModel):
    name: str
    revision: int
    versions: tuple[LoadedVersion, ...]


class _Server(BaseModel):
    """What a server says of itself; more than is read here."""

    models: tuple[_Served, ...]


class InferenceClient(ApiClient):
    """Calls inference. Every method raises NotFound, Invalid, Overloaded or Unavailable as the case is."""

    service = "inference"

    def infer(
        self,
        model: str,
        rows: Sequence[Row] | pd.DataFrame,
        *,
        version: str | int | None = None,
        event_time: datetime | None = None,
        routing_key: str | None = None,
    ) -> Prediction:
        """Predict rows.

        Args:
            model: its name.
            rows: dicts of feature to value, or a DataFrame.
            version: a number or digest; the champion or the candidate by the split when left out.
            event_time: when it happened; now when left out.
            routing_key: requests with one key go to one version during a rollout.

        Raises:
            Invalid: names the row and the feature.
        """
        parameters: dict[str, Any] = {}
        if event_time is not None:
            parameters["event_time"] = event_time.isoformat()
        if routing_key is not None:
            parameters["routing_key"] = routing_key
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version is not None else "") + "/infer"
        body: dict[str, Any] = {"inputs": tensors(_records(rows))}
        if parameters:
            body["parameters"] = parameters
        response = self._http.request("POST", path, json=body)
        answer = self._read(InferResponse, response)
        outputs = {tensor.name: tensor for tensor in answer.outputs}
        if "predict" not in outputs:
            raise Unavailable(f"{self.service} at {self._http.shown_url} answered without predictions")
        probabilities = None
        if (proba := outputs.get("predict_proba")) is not None:
            width = proba.shape[-1]
            probabilities = [proba.data[i : i + width] for i in range(0, len(proba.data), width)]
        return Prediction(
            id=response.headers.get("modelyard-prediction-id", answer.id),
            model=answer.model_name,
            version=answer.model_version,
            predictions=list(outputs["predict"].data),
            probabilities=probabilities,
        )

    def score(
        self,
        model: str,
        table: bytes,
        media_type: str,
        *,
        version: str | None = None,
        logged: bool = True,
        timeout_s: float = _SCORE_TIMEOUT_S,
    ) -> Scored:
        """Predict the rows of a table, and return the answers as one.

        Args:
            table: a whole Arrow stream, Parquet or CSV file.
            media_type: which of them, as MLflow's scoring protocol names it.
            version: a number, digest or alias; the routing table decides when left out.
            logged: whether it is part of what the model is asked in production; ``False`` is for admins and services.

        Raises:
            Invalid: names the row and the feature, as ``[row].feature: …``, or what is wrong with the table.
        """
        path = f"/models/{model}" + (f"/versions/{version}" if version is not None else "") + "/invocations"
        headers = {"content-type": media_type, "accept": _ARROW, "modelyard-log": "true" if logged else "false"}
        response = self._http.request("POST", path, content=table, headers=headers, timeout_s=timeout_s)
        if response.headers.get("content-type") != _ARROW:
            raise Unavailable(f"{self.service} at {self._http.shown_url} answered something that is no Arrow stream")
        return Scored(
            id=response.headers["modelyard-prediction-id"],
            version=response.headers["modelyard-version"],
            table=response.content,
        )

    def explain(
        self,
        model: str,
        rows: Sequence[Row] | pd.DataFrame,
        *,
        version: str | int | None = None,
        timeout_s: float = _EXPLAIN_TIMEOUT_S,
    ) -> ExplainResponse:
        """Return what each feature of each row adds to the answer.

        Args:
            rows: dicts of feature to value, or a DataFrame; few, since each is asked about many times.
            version: a number, digest or alias; the champion when left out.

        Raises:
            Invalid: names the row and the feature.
            TooLarge: too many rows for one request.
        """
        given = [
            {name: _plain(value, f"[{number}].{name}") for name, value in row.items()}
            for number, row in enumerate(_records(rows))
        ]
        if not given:
            raise Invalid("there are no rows to explain")
        path = f"/v1/models/{model}" + (f"/versions/{version}" if version is not None else "") + ":explain"
        response = self._http.request("POST", path, json={"instances": given}, timeout_s=timeout_s)
        return self._read(ExplainResponse, response)

    def ready(self, model: str) -> bool:
        """Return whether the model can be asked now."""
        try:
            self._http.request("GET", f"/v2/models/{model}/ready", timeout_s=3.0)
        except ModelyardError:
            return False
        return True

    def index(self) -> list[IndexEntry]:
        """Return every version that one server has loaded, and the models that wait for one."""
        response = self._http.request("POST", "/v2/repository/index", json={}, timeout_s=3.0)
        return self._read(_Index, response).root

    def revision(self, model: str) -> int | None:
        """Return the routing revision that one server serves a model by; None when it serves none."""
        server = self._read(_Server, self._http.request("GET", "/v1/served", timeout_s=3.0))
        return next((served.revision for served in server.models if served.name == model), None)

    def version(self, model: str, reference: str) -> LoadedVersion:
        """Return the version with this number, digest or alias (``@champion``) that one server has loaded.

        Raises:
            NotFound: it serves no such model, or has no such version loaded.
        """
        server = self._read(_Server, self._http.request("GET", "/v1/served", timeout_s=3.0))
        served = next((one for one in server.models if one.name == model), None)
        if served is None:
            self._http.request("GET", f"/v2/models/{model}")  # says why: unknown, or not ready yet
            raise NotFound(f"there is no model {model!r} here")
        for one in served.versions:
            if reference in (str(one.number), one.digest, f"@{one.role}") and reference != "@kept":
                return one
        numbers = ", ".join(str(one.number) for one in served.versions)
        raise NotFound(f"model {model!r} has no version {reference!r} loaded; there is {numbers}")

    def metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Return what the model, or one version of it, takes and gives."""
        below = f"/versions/{version}" if version is not None else ""
        return self._get(ModelMetadata, f"/v2/models/{model}{below}")


def _records(rows: Any) -> list[dict[str, Any]]:
    """Return rows, or those of a data frame, as dicts."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        if not rows.columns.is_unique:
            raise Invalid("two columns of the data frame have one name")
        # Only None stands for a missing value in all of pandas' kinds of columns.
        rows = rows.astype(object).where(rows.notna(), None).to_dict(orient="records")
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise Invalid("rows must be a list of dicts (feature to value) or a DataFrame")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _plain(value: Any, path: str) -> Any:
    """Return a value as one of Python's own."""
    if isinstance(value, _PLAIN) and not isinstance(value, float):
        return value
    if hasattr(value, "item") and not isinstance(value, float):  # of numpy
        return _plain(value.item(), path)
    if not isinstance(value, float):
        raise Invalid.at(path, f"must be a number, a text, a boolean or None, not a {type(value).__name__}")
    if math.isinf(value):
        raise Invalid.at(path, "must be finite")
    return None if math.isnan(value) else float(value)
