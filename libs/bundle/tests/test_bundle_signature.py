"""From what people send to columns: by name, checked, and never a guess."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bundle_makers import MIXED, signature
from hypothesis import given
from hypothesis import strategies as st
from modelyard_bundle.signature import columns_from_rows, columns_from_values, numeric_features, text_features
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Column

SHAPE = signature()
ROW: dict[str, Any] = {"load": 0.5, "day": "mon", "price": 2.5, "holiday": True}

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "load": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(2**24), 2**24),
            "day": st.text(),
            "price": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            "holiday": st.booleans(),
        }
    ),
    min_size=1,
    max_size=20,
)


def as_values(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@given(ROWS)
def test_columns_hold_what_the_rows_held(rows: list[dict[str, Any]]) -> None:
    columns = columns_from_rows(SHAPE, rows)

    assert list(columns) == [column.name for column in MIXED]
    for number, row in enumerate(rows):
        back = {name: values[number] for name, values in columns.items()}
        assert back["load"] == row["load"]
        assert back["day"] == row["day"]
        assert math.isnan(back["price"]) if row["price"] is None else back["price"] == row["price"]
        assert bool(back["holiday"]) == row["holiday"]


@given(ROWS, st.permutations(list(ROW)))
def test_rows_and_columns_in_any_order_are_read_alike(rows: list[dict[str, Any]], order: list[str]) -> None:
    values = as_values(rows)
    by_rows = columns_from_rows(SHAPE, [{name: row[name] for name in order} for row in rows])
    by_values = columns_from_values(SHAPE, {name: values[name] for name in order})

    for name, column in by_rows.items():
        np.testing.assert_array_equal(column, by_values[name])


@given(ROWS)
def test_numbers_of_numpy_are_read_as_those_of_python(rows: list[dict[str, Any]]) -> None:
    wrapped = [
        {
            "load": np.float64(row["load"]),
            "day": row["day"],
            "price": np.float32(math.nan if row["price"] is None else row["price"]),
            "holiday": np.bool_(row["holiday"]),
        }
        for row in rows
    ]

    for name, column in columns_from_rows(SHAPE, rows).items():
        np.testing.assert_array_equal(column, columns_from_rows(SHAPE, wrapped)[name])


def test_numbers_become_32_bits_and_texts_stay_objects() -> None:
    columns = columns_from_rows(SHAPE, [ROW, ROW | {"price": math.nan, "holiday": 0}])

    assert {name: column.dtype.name for name, column in columns.items()} == {
        "load": "float32",
        "day": "object",
        "price": "float32",
        "holiday": "float32",
    }
    assert {column.shape for column in columns.values()} == {(2,)}
    assert numeric_features(SHAPE) == ["load", "price", "holiday"]
    assert text_features(SHAPE) == ["day"]


def test_a_category_may_be_an_integer_and_is_kept_as_text() -> None:
    columns = columns_from_rows(SHAPE, [ROW | {"day": 7}, ROW | {"day": np.int64(8)}])

    assert columns["day"].tolist() == ["7", "8"]


def test_an_optional_category_that_is_missing_is_an_empty_text() -> None:
    shape = signature(features=(Column(name="day", type="category", required=False),))

    assert columns_from_rows(shape, [{"day": None}, {}])["day"].tolist() == ["", ""]


FINITE = "must be a finite number of 32 bits"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("load", None, "is required"),
        ("load", "1.5", "must be a number"),
        ("load", True, "must be a number"),
        ("load", [1.0], "must be a number"),
        ("load", math.nan, FINITE),
        ("load", math.inf, FINITE),
        ("load", 1e39, FINITE),
        ("load", 10**400, FINITE),
        ("load", np.float64(math.inf), FINITE),
        ("load", np.float64(math.nan), FINITE),
        ("price", -math.inf, FINITE),
        ("holiday", 2, "must be a boolean"),
        ("holiday", 0.0, "must be a boolean"),
        ("holiday", "true", "must be a boolean"),
        ("day", None, "is required"),
        ("day", 1.5, "must be a category (text or an integer)"),
        ("day", True, "must be a category (text or an integer)"),
    ],
)
def test_a_wrong_value_is_named_by_its_place_and_not_repeated(field: str, value: object, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        columns_from_rows(SHAPE, [ROW, ROW | {field: value}])

    (error,) = caught.value.errors
    assert (error.path, error.message) == (f"[1].{field}", message)
    assert caught.value.message == f"[1].{field}: {message}"


def test_an_unknown_feature_is_told_which_there_are() -> None:
    for ask in (lambda: columns_from_rows(SHAPE, [ROW | {"lod": 1}]), lambda: columns_from_values(SHAPE, {"lod": [1]})):
        with pytest.raises(
            Invalid, match="lod: is not a feature of this model; its features are day, holiday, load, price"
        ):
            ask()


def test_a_missing_feature_is_required_or_missing() -> None:
    with pytest.raises(Invalid, match=r"\[0\]\.load: is required"):
        columns_from_rows(SHAPE, [{"day": "mon", "holiday": False}])
    with pytest.raises(Invalid, match=r"\[0\]\.load: is required"):
        columns_from_values(SHAPE, {"day": ["mon"], "holiday": [False]})

    assert np.isnan(columns_from_values(SHAPE, {"load": [1], "day": ["mon"], "holiday": [False]})["price"]).all()


def test_no_rows_are_refused() -> None:
    for ask in (
        lambda: columns_from_rows(SHAPE, []),
        lambda: columns_from_values(SHAPE, {}),
        lambda: columns_from_values(SHAPE, {"load": []}),
    ):
        with pytest.raises(Invalid, match="there are no rows"):
            ask()


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(Invalid, match="different numbers of rows"):
        columns_from_values(SHAPE, {"load": [1, 2], "day": ["mon"], "holiday": [True, False]})


def test_at_most_twenty_errors_are_named() -> None:
    for wrong in ([ROW | {"load": "x"}] * 1000, [ROW | {"lod": "x"}] * 1000):
        with pytest.raises(Invalid) as caught:
            columns_from_rows(SHAPE, wrong)
        assert len(caught.value.errors) == 20
