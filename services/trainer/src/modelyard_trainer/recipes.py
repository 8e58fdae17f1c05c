"""Recipes: which estimators there are, for which task, and how raw columns are prepared for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelyard_bundle.signature import numeric_features, text_features
from modelyard_contracts.bundle_v1 import Signature
from modelyard_contracts.managed_model_v1alpha1 import Recipe
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modelyard_trainer.errors import RunFailed

__all__ = ["build"]

_OURS = frozenset({"random_state", "n_jobs", "verbose", "warm_start"})
"""The platform sets these: the seed comes from train.seed, threads from train.resources."""


@dataclass(frozen=True, slots=True)
class _Family:
    """One estimator name: a class a task, and how numbers are prepared."""

    classes: dict[str, Callable[..., Any]]
    scale: bool = False
    takes_missing: bool = False


_FAMILIES: dict[str, _Family] = {
    "logistic_regression": _Family({"classification": LogisticRegression}, scale=True),
    "linear_regression": _Family({"regression": LinearRegression}, scale=True),
    "ridge": _Family({"regression": Ridge}, scale=True),
    "random_forest": _Family({"classification": RandomForestClassifier, "regression": RandomForestRegressor}),
    "gradient_boosting": _Family(
        {"classification": GradientBoostingClassifier, "regression": GradientBoostingRegressor}
    ),
    "hist_gradient_boosting": _Family(
        {"classification": HistGradientBoostingClassifier, "regression": HistGradientBoostingRegressor},
        takes_missing=True,
    ),
    "decision_tree": _Family({"classification": DecisionTreeClassifier, "regression": DecisionTreeRegressor}),
    "isolation_forest": _Family({"anomaly": IsolationForest}),
}


def build(recipe: Recipe, signature: Signature, seed: int) -> Pipeline:
    """Return the unfitted pipeline of a recipe.

    Raises:
        RunFailed: the estimator does not do this task, or a parameter is not one of its own; names what is allowed.
    """
    family = _FAMILIES[recipe.estimator]
    if signature.task not in family.classes:
        able = sorted(name for name, other in _FAMILIES.items() if signature.task in other.classes)
        raise RunFailed(
            f"spec.train.recipe.estimator: {recipe.estimator} does not do {signature.task}; allowed: {', '.join(able)}"
        )
    make = family.classes[signature.task]
    known = set(inspect.signature(make).parameters)
    allowed = known - _OURS
    for name in recipe.params:
        if name not in allowed:
            raise RunFailed(
                f"spec.train.recipe.params.{name} is not a parameter of {recipe.estimator}; "
                f"allowed: {', '.join(sorted(allowed))}"
            )
    fixed: dict[str, Any] = {"random_state": seed} if "random_state" in known else {}
    if recipe.estimator == "hist_gradient_boosting" and "early_stopping" not in recipe.params:
        fixed["early_stopping"] = False  # its own split would be random, and hide rows that are newest
    return Pipeline([("prepare", _prepare(signature, family)), ("model", make(**fixed, **recipe.params))])


def _prepare(signature: Signature, family: _Family) -> ColumnTransformer:
    """Return what turns raw columns into numbers; columns are taken by place: numbers first, then categories."""
    numbers, texts = len(numeric_features(signature)), len(text_features(signature))
    numeric: Any = "passthrough"
    if not family.takes_missing:
        steps = [SimpleImputer(strategy="median", keep_empty_features=True)]
        numeric = make_pipeline(*steps, *([StandardScaler()] if family.scale else []))
    parts: list[tuple[str, Any, list[int]]] = []
    if numbers:
        parts.append(("numbers", numeric, list(range(numbers))))
    if texts:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        parts.append(("categories", encoder, list(range(numbers, numbers + texts))))
    return ColumnTransformer(parts)
