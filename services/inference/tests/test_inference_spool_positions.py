"""How far a reader of the spool has come: whatever was written last, and the beginning where nothing can be read."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_inference.adapters.spool_positions import Position, PositionFile

NUMBERS = st.integers(0, 2**63 - 1)
POSITIONS = st.builds(Position, NUMBERS, NUMBERS)


@given(st.lists(POSITIONS, min_size=1, max_size=5))
def test_what_was_written_last_is_read(positions: Sequence[Position]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = PositionFile(Path(folder) / "sent.json")
        for position in positions:
            file.write(position)
            assert PositionFile(Path(folder) / "sent.json").read() == position
        file.close()
        file.close()


def test_what_ends_late_does_not_write_over_a_later_owners(tmp_path: Path) -> None:
    late, owner = PositionFile(tmp_path / "sent.json"), PositionFile(tmp_path / "sent.json")
    late.write(Position(1))
    late.close()
    owner.write(Position(2))
    late.write(Position(1, 9))

    assert owner.read() == Position(2)
    owner.close()


def test_one_that_an_older_version_wrote_is_read_and_written_over(tmp_path: Path) -> None:
    (tmp_path / "sent.json").write_bytes(msgspec.json.encode(Position(12, 3456)))
    file = PositionFile(tmp_path / "sent.json")

    assert file.read() == Position(12, 3456)
    file.write(Position(13))
    file.close()
    assert file.read() == Position(13, 0)


@pytest.mark.parametrize("content", [b"", bytes(128), b'{"segment": 1', b"[]", b"\xff" * 10])
def test_what_cannot_be_read_is_the_beginning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sent.json").write_bytes(content)

    assert PositionFile(tmp_path / "sent.json").read() == Position()


def test_where_there_is_none_it_is_the_beginning(tmp_path: Path) -> None:
    assert PositionFile(tmp_path / "sent.json").read() == Position()


def test_a_position_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "later" / "sent.json")

    file.write(Position(1))
    (tmp_path / "later").mkdir()
    file.write(Position(2))
    file.close()

    assert file.read() == Position(2)
