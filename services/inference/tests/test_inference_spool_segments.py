"""Files of the spool that are written over: nothing of what they held before is ever taken for a record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.payload_spool import DRIFT, PayloadSpool
from modelyard_inference.adapters.spool_blocks import unpack
from modelyard_inference.domain.records import Block
from test_inference_spool import a_record

KIB = 1024
MAX_BYTES, SEGMENT_BYTES = 24 * KIB, 4 * KIB
LARGEST_BLOCK = 3 * KIB
"""Of those below: a file may be so much longer than a segment."""


def opened(root: Path, **changes: object) -> PayloadSpool:
    return PayloadSpool(root, **{"max_bytes": MAX_BYTES, "segment_bytes": SEGMENT_BYTES} | changes)  # type: ignore[arg-type]


def ids_of(payloads: Sequence[bytes]) -> list[str]:
    return [row.split(b'"', 4)[3].decode() for payload in payloads for row in unpack(payload)]


def take(spool: PayloadSpool, most_bytes: int = KIB) -> list[str]:
    """Return the ids of what comes next, and say that it was sent."""
    found = spool.read_blocks(500, most_bytes)
    if found is None:
        return []
    spool.sent(found.after)
    return ids_of([payload for payload, _ in found.payloads])


def take_all(spool: PayloadSpool) -> list[str]:
    found: list[str] = []
    while some := take(spool):
        found += some
    return found


def use_for_long(spool: PayloadSpool) -> None:
    """Write a hundred records, and send them, so that files were written over."""
    for number in range(100):
        spool.append([a_record(number)])
        take_all(spool)


def after_a_kill(spool: PayloadSpool, to: Path) -> PayloadSpool:
    """Return what a process finds that begins where this one has got to."""
    shutil.copytree(spool.root, to)
    return opened(to)


def on_disk(spool: PayloadSpool) -> int:
    return sum(path.stat().st_size for path in spool.root.glob("*.events"))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[PayloadSpool]:
    spool = opened(tmp_path / "spool")
    yield spool
    spool.close()


def test_files_that_all_have_read_are_written_over(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool", max_bytes=1024 * KIB)
    inodes, found = set(), []
    for number in range(200):
        spool.append([a_record(number)])
        found += take_all(spool)
        inodes |= {path.stat().st_ino for path in spool.root.glob("*.events")}

    spool.close()

    assert found == [f"p{number}/0" for number in range(200)]
    assert len(inodes) == 2


def test_what_a_file_held_before_is_no_damage(spool: PayloadSpool, tmp_path: Path) -> None:
    damaged = metrics.SPOOL_DAMAGED._value.get()
    use_for_long(spool)
    spool.append([a_record(100)])

    again = after_a_kill(spool, tmp_path / "again")
    found, size = take_all(again), again.state.size_bytes
    again.close()

    assert found == ["p100/0"]
    assert size == on_disk(again)
    assert metrics.SPOOL_DAMAGED._value.get() == damaged


@pytest.mark.parametrize("written", [3, 9, 300, 440])
def test_a_write_that_a_kill_cuts_short_leaves_those_before_it(tmp_path: Path, written: int) -> None:
    def write(fd: int, parts: Sequence[bytes], start: int) -> int:
        if is_cut:
            os.pwrite(fd, b"".join(parts)[:written], start)
            raise SystemExit
        return os.pwritev(fd, parts, start)

    is_cut = False
    spool = opened(tmp_path / "spool", write=write)
    use_for_long(spool)
    spool.append([a_record(100)])
    is_cut = True
    with pytest.raises(SystemExit):
        spool.append([a_record(101), a_record(102)])

    again = after_a_kill(spool, tmp_path / "again")
    found = take_all(again)
    again.append([a_record(103)])
    found += take_all(again)
    again.close()
    spool.close()

    assert found[0] == "p100/0"
    assert found[-1] == "p103/0"
    assert set(found[1:-1]) <= {"p101/0"}


def test_a_kill_before_the_first_record_of_a_file_leaves_none_that_it_held_before(tmp_path: Path) -> None:
    def write(fd: int, parts: Sequence[bytes], start: int) -> int:
        if is_cut and start == 0:
            raise SystemExit
        return os.pwritev(fd, parts, start)

    is_cut = False
    spool = opened(tmp_path / "spool", write=write)
    use_for_long(spool)
    is_cut = True
    with pytest.raises(SystemExit):
        for number in range(100, 200):
            spool.append([a_record(number)])
            take_all(spool)

    again = after_a_kill(spool, tmp_path / "again")
    found = take_all(again)
    again.close()
    spool.close()

    assert found == []


def test_a_clean_end_leaves_nothing_but_what_was_written(spool: PayloadSpool) -> None:
    use_for_long(spool)
    spool.append([a_record(100)])

    spool.close()

    assert on_disk(spool) <= spool.state.pending_bytes + SEGMENT_BYTES
    (only,) = spool.root.glob("*.events")
    assert only.stat().st_size == on_disk(spool)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6), st.sampled_from([0, 0, 100, 900])),
        st.tuples(st.just("take"), st.integers(1, 8), st.just(0)),
        st.tuples(st.just("kill"), st.just(0), st.just(0)),
        st.tuples(st.just("close"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_what_is_unsent_is_there_once_and_no_more_disk_is_taken(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("spools")
    names, folders = count(), count()
    spool = opened(root / str(next(folders)))
    unsent: list[str] = []
    damaged = metrics.SPOOL_DAMAGED._value.get()
    for what, times, padding in steps:
        if what == "append":
            for _ in range(times):
                blocks: list[Block] = [a_record(next(names), "x" * padding) for _ in range(2)]
                before = spool.state.dropped
                spool.append(blocks)
                if spool.state.dropped == before:
                    unsent += [f"{block.id}/0" for block in blocks]
        elif what == "take":
            for _ in range(times):
                got = take(spool)
                assert got == unsent[: len(got)]
                unsent = unsent[len(got) :]
        elif what == "kill":
            former, spool = spool, after_a_kill(spool, root / str(next(folders)))
            former.close()
        else:
            spool.close()
            spool = opened(spool.root)
        assert spool.state.size_bytes == on_disk(spool) <= MAX_BYTES + LARGEST_BLOCK
    assert take_all(spool) == unsent
    assert spool.pending_bytes(DRIFT) == 0
    spool.close()
    assert metrics.SPOOL_DAMAGED._value.get() == damaged
    shutil.rmtree(root)
