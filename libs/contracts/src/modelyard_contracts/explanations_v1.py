"""Explanations: what each feature of a row added to its answer. The request is V1's, ``instances`` or ``inputs``."""

from __future__ import annotations

from typing import Literal

from modelyard_contracts.base import View
from modelyard_contracts.refs import DigestText, ModelName

__all__ = ["Background", "ExplainResponse", "RowExplanation"]


class RowExplanation(View):
    """One row: ``base_value`` and the contributions sum to ``value``, less ``additivity_error``."""

    prediction: str | int | float | bool
    """What the model answers."""
    label: str | int | float | bool | None = None
    """The class that is explained: the positive one, else the predicted one; null where it is a value or a score."""
    value: float
    """The answer that is explained, in ``space``."""
    base_value: float
    """The average of it over the background."""
    contributions: dict[str, float]
    """Feature to its Shapley value."""
    standard_errors: dict[str, float] | None = None
    """Of the contributions, where they are estimates; null where they are exact."""
    additivity_error: float


class Background(View):
    """What rows are compared with: the version's probe set."""

    source: Literal["probe set"] = "probe set"
    rows: int


class ExplainResponse(View):
    """``POST /v1/models/{m}[/versions/{v}]:explain``."""

    explanations: tuple[RowExplanation, ...]
    """In the order of the rows."""
    method: Literal["linear", "exact", "trees", "permutation"]
    """``linear``: the model adds its features up, which was measured; ``exact``: the formula over all subsets of
    features; ``trees``: the same, by all leaves of a sum of trees; ``permutation``: an estimate from walks in random
    orders."""
    space: Literal["log-odds", "probability", "value", "score"]
    model_name: ModelName
    model_version: str
    """Its number."""
    digest: DigestText
    background: Background
    evaluations: int
    """Rows that the model was asked for this."""
