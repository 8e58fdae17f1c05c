"""Laws of frames."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.frames import framed, payloads_in

payloads = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def read(frames: bytes) -> tuple[list[bytes], str]:
    """Return what could be read, and what was wrong with what follows."""
    found = []
    try:
        for payload in payloads_in(frames):
            found.append(payload)
    except ValueError as exc:
        return found, str(exc)
    return found, ""


@given(payloads, payloads)
def test_frames_behind_frames_are_frames(some: list[bytes], more: list[bytes]) -> None:
    assert read(framed(some) + framed(more)) == ([*some, *more], "")


@given(payloads, st.integers(0, 3000))
def test_any_prefix_gives_a_prefix_and_says_where_it_is_cut(some: list[bytes], cut: int) -> None:
    whole = framed(some)

    found, wrong = read(whole[:cut])

    assert found == some[: len(found)]
    assert bool(wrong) == (framed(found) != whole[:cut])
    assert "cut off" in wrong or not wrong


@given(payloads.filter(bool), st.data())
def test_a_bit_that_has_turned_is_seen(some: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(framed(some))
    place = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[place // 8] ^= 1 << place % 8

    found, wrong = read(bytes(whole))

    assert wrong
    assert found == some[: len(found)]


def test_the_sum_is_crc_32c() -> None:
    assert framed([b"123456789"])[4:8] == struct.pack("<I", 0xE3069283)  # the check value of RFC 3720's polynomial


@pytest.mark.parametrize("frames", [bytes(4096), b"\xff" * 8, bytes(7)])
def test_what_is_no_frame_gives_nothing(frames: bytes) -> None:
    found, wrong = read(frames)

    assert not found
    assert wrong
