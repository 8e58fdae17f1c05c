"""MLflow's scoring payloads (``POST /invocations``): exactly one of four forms."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from modelyard_contracts.base import Request, View

__all__ = ["DataframeSplit", "ScoringRequest", "ScoringResponse"]


class DataframeSplit(Request):
    """Columns apart from rows, as pandas' ``orient="split"`` writes it."""

    columns: tuple[str, ...]
    data: list[list[Any]]
    index: list[Any] | None = None


class ScoringRequest(Request):
    """What MLflow clients send."""

    dataframe_split: DataframeSplit | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | dict[str, Any] | None = None
    inputs: list[Any] | dict[str, Any] | None = None
    params: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ScoringRequest:
        forms = (self.dataframe_split, self.dataframe_records, self.instances, self.inputs)
        if sum(form is not None for form in forms) != 1:
            raise ValueError("give exactly one of dataframe_split, dataframe_records, instances and inputs")
        return self


class ScoringResponse(View):
    """One prediction a row."""

    predictions: list[Any]
