"""Cursors: what goes in comes out, and what anybody makes up is refused as a wrong field."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.errors import Invalid
from modelyard_common.pagination import decode_cursor, decode_number, encode_cursor

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.integers(-(2**63), 2**63 - 1) | TEXTS)
def test_a_position_survives_its_cursor(position: int | str) -> None:
    cursor = encode_cursor(position)

    assert decode_cursor(cursor) == position
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?# ")


def test_no_cursor_is_the_start() -> None:
    assert decode_cursor(None) is None


def of(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "no cursor",
        "x",
        "ä",
        of([]),
        of([1, 2]),
        of([None]),
        of([True]),
        of([1.5]),
        of([[1]]),
        of({"a": 1}),
        of(7),
        of("text"),
        of([2**63]),
        of(["\0"]),
        of(["\ud800"]),
        of([float("inf")]),
        base64.urlsafe_b64encode(b"[" * 20_000).decode(),
        base64.urlsafe_b64encode(b"[" + b"9" * 5_000 + b"]").decode(),
    ],
)
def test_what_is_no_cursor_is_refused_as_a_wrong_field(cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_cursor(cursor)

    assert caught.value.errors[0].path == "cursor"


@given(st.text())
def test_no_text_breaks_a_list(text: str) -> None:
    with contextlib.suppress(Invalid):
        decode_cursor(text)


@given(st.none() | st.integers(0, 2**63 - 1))
def test_a_numbered_list_reads_its_own_cursors(position: int | None) -> None:
    assert decode_number(None if position is None else encode_cursor(position)) == position


@given(TEXTS | st.integers(-(2**63), -1))
def test_a_numbered_list_refuses_the_cursor_of_one_that_is_not(position: int | str) -> None:
    with pytest.raises(Invalid) as refused:
        decode_number(encode_cursor(position))
    assert refused.value.errors[0].path == "cursor"
