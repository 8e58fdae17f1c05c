"""A forest that asks its trees itself answers, and refuses, what scikit-learn's own way does, to the last bit."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from modelyard_bundle.runtimes.forests import ask_trees
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RANDOM = np.random.default_rng(3)
ROWS = np.round(RANDOM.normal(size=(200, 5)) * 2) / 2
TWO = (ROWS[:, 0] + RANDOM.normal(size=200) > 0).astype(int)
MANY = np.array(["a", "b", "c"])[np.digitize(ROWS[:, 0] + ROWS[:, 1], [-0.5, 0.5])]
AMOUNT = ROWS @ np.arange(5.0)
GAPS = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)

FORESTS = {
    "two classes": (RandomForestClassifier(10, random_state=0), ROWS, TWO),
    "many classes": (RandomForestClassifier(10, random_state=0), ROWS, MANY),
    "weights": (RandomForestClassifier(10, class_weight="balanced", random_state=0), ROWS, TWO),
    "monotonic": (RandomForestClassifier(10, monotonic_cst=[1, 0, 0, 0, 0], random_state=0), ROWS, TWO),
    "one tree": (RandomForestClassifier(1, random_state=0), ROWS, TWO),
    "extra trees": (ExtraTreesClassifier(10, random_state=0), ROWS, MANY),
    "amounts": (RandomForestRegressor(10, random_state=0), ROWS, AMOUNT),
    "monotonic amounts": (RandomForestRegressor(10, monotonic_cst=[0, -1, 0, 0, 0], random_state=0), ROWS, AMOUNT),
    "poisson": (RandomForestRegressor(10, criterion="poisson", random_state=0), ROWS, np.abs(AMOUNT)),
    "extra amounts": (ExtraTreesRegressor(10, random_state=0), ROWS, AMOUNT),
    "gaps": (RandomForestClassifier(10, random_state=0), GAPS, TWO),
    "pipeline": (make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)), ROWS, TWO),
    "calibrated": (CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2), ROWS, TWO),
    "several amounts": (RandomForestRegressor(5, random_state=0), ROWS, np.stack([AMOUNT, -AMOUNT], axis=1)),
}


def pair(name: str) -> tuple[Any, Any, Any]:
    """Return a fitted forest that asks its trees itself, its like that does not, and rows."""
    estimator, rows, target = FORESTS[name]
    plain = copy.deepcopy(estimator).fit(rows, target)
    quick = copy.deepcopy(plain)
    ask_trees(quick)
    return quick, plain, rows


@pytest.mark.parametrize("name", FORESTS)
def test_the_answers_are_the_same_to_the_last_bit(name: str) -> None:
    quick, plain, rows = pair(name)

    for some in (rows[:1], rows[:7], rows, rows.astype(np.float32), np.asfortranarray(rows)):
        assert np.array_equal(quick.predict(some), plain.predict(some))
        if hasattr(plain, "predict_proba"):
            assert quick.predict_proba(some).tobytes() == plain.predict_proba(some).tobytes()


@pytest.mark.parametrize("name", ["two classes", "amounts", "gaps"])
@pytest.mark.parametrize(
    "rows",
    [ROWS[:, :4], ROWS[0], GAPS, np.full((1, 5), np.inf), ROWS[:0], [["a"] * 5]],
    ids=["narrow", "flat", "gaps", "infinite", "none", "text"],
)
def test_the_same_is_refused(name: str, rows: Any) -> None:
    quick, plain, _ = pair(name)
    try:
        expected = plain.predict(rows)
    except ValueError as exc:
        with pytest.raises(ValueError) as told:  # the message is compared
            quick.predict(rows)
        assert str(told.value) == str(exc)
    else:
        assert np.array_equal(quick.predict(rows), expected)


def test_joblib_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, plain, rows = pair("two classes")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a task a tree")

    monkeypatch.setattr("sklearn.ensemble._forest.Parallel", refuse)

    assert quick.predict(rows).shape == (200,)
    with pytest.raises(AssertionError, match="a task a tree"):
        plain.predict(rows)


class OwnForest(RandomForestClassifier):
    """A forest that somebody has changed."""


def test_what_is_not_scikit_learns_own_stays_as_it_is() -> None:
    own = OwnForest(3, random_state=0).fit(ROWS, TWO)
    ask_trees(own)

    assert "predict_proba" not in vars(own)


def test_a_forest_goes_without_a_look_for_cycles() -> None:
    quick, _, rows = pair("two classes")
    quick.predict(rows)
    gone = weakref.ref(quick)
    gc.disable()
    try:
        del quick
        assert gone() is None
    finally:
        gc.enable()
