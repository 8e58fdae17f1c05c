"""The spool: what it took survives kill -9, a full or broken disk loses no prediction, drift gets each record."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import NOW, digest_of, eventually
from modelyard_client.drift import TakesNoBlocks
from modelyard_common.errors import Conflict, Invalid, ModelyardError, TooLarge, Unavailable
from modelyard_common.testing import FakeClock
from modelyard_contracts.events_v1 import EventBatch, EventReceipt, PredictionEvent
from modelyard_contracts.frames import framed, payloads_in
from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.dead_letters import DeadLetters
from modelyard_inference.adapters.event_sender import EventSender
from modelyard_inference.adapters.payload_spool import DRIFT, PayloadSpool
from modelyard_inference.adapters.spool_blocks import pack, pack_alike, rows_of, traceparent_of, unpack
from modelyard_inference.adapters.spool_records import framed_bytes, records, sound_bytes
from modelyard_inference.domain.answers import AnswerTable
from modelyard_inference.domain.records import Alike, Block, Stamp

KIB = 1024
_MODEL, _VALUES, _ERROR = (Block._fields.index(name) for name in ("model", "values", "error"))


def a_record(number: int, padding: str = "", traceparent: str | None = None) -> Block:
    digest = digest_of("a")
    return Block(
        id=f"p{number}",
        rows=1,
        model="power",
        revision=1,
        champion=digest,
        version=digest,
        role="champion",
        event_times=(NOW,),
        arrival=NOW,
        latency_ms=0.5,
        routing_key="",
        sampled=True,
        names=("load", "day"),
        values=(0.5, padding),
        predictions=(1,),
        scores=None,
        traceparent=traceparent,
    )


class DriftInMemory:
    """Counts each (id, role) once."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.batches: list[int] = []
        self.as_json: list[int] = []
        self.bodies: list[bytes] = []
        self.knows_blocks = True
        self.failure: Callable[[EventBatch], ModelyardError | None] = lambda batch: None

    def send_blocks(self, source: str, blocks: bytes) -> EventReceipt:
        if not self.knows_blocks:
            raise TakesNoBlocks
        self.bodies.append(blocks)
        try:
            sent = [msgspec.msgpack.decode(block, type=Block) for block in payloads_in(blocks)]
        except ValueError as exc:
            raise Invalid("no") from exc
        events = tuple(PredictionEvent(**event) for block in sent for event in block.events())
        return self._take(EventBatch(source=source, events=events), self.batches)

    def send_events(self, batch: EventBatch) -> EventReceipt:
        return self._take(batch, self.as_json)

    def _take(self, batch: EventBatch, batches: list[int]) -> EventReceipt:
        if (error := self.failure(batch)) is not None:
            raise error
        batches.append(len(batch.events))
        known = 0
        for event in batch.events:
            known += event.id in self.seen
            self.seen[event.id] = self.seen.get(event.id, 0) + 1
        return EventReceipt(accepted=len(batch.events) - known, duplicates=known, last_seq=len(self.seen))


def alike(counts: list[int], labels: list[Any], row_bytes: int, *, has_scores: bool = True) -> Alike:
    """Return the blocks of requests that were answered together, with so many bytes of float64 values a row."""
    rows = len(labels)
    names = [f"n{place}" for place in range(row_bytes // 8)]
    first = a_record(0)._replace(names=names)
    stamp = Stamp(first[_MODEL:_VALUES], first[_ERROR:])
    values = memoryview(os.urandom(rows * row_bytes))
    table = AnswerTable(counts, labels, None, 1, [row / 7 for row in range(rows)] if has_scores else None)
    return Alike(stamp, [f"p{place}" for place in range(len(counts))], values, table)


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[Callable[..., PayloadSpool]]:
    opened: list[PayloadSpool] = []

    def open_spool(**changes: Any) -> PayloadSpool:
        given = {"max_bytes": 1024 * KIB, "segment_bytes": 64 * KIB} | changes
        opened.append(PayloadSpool(tmp_path / "spool", **given))
        return opened[-1]

    yield open_spool
    for spool in opened:
        spool.close()


def read_records(fd: int, size: int) -> tuple[list[bytes], int]:
    found = list(records(fd, 0, size))
    return found, sum(map(framed_bytes, found))


def a_sender(spool: PayloadSpool, drift: DriftInMemory, tmp_path: Path) -> EventSender:
    return EventSender(spool, drift, DeadLetters(tmp_path / "refused.jsonl"), source="test", linger_s=0, flush_s=1)


def send_all(sender: EventSender) -> None:
    while sender.send_once():
        pass


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(0, 5000))
def test_any_prefix_of_a_file_gives_a_prefix_of_its_records(payloads: list[bytes], cut: int) -> None:
    whole = framed(payloads)
    read_end = os.memfd_create("records")
    try:
        os.write(read_end, whole[:cut])
        size = min(cut, len(whole))

        found, offset = read_records(read_end, size)

        assert found == payloads[: len(found)]
        assert offset == sound_bytes(read_end, size) == len(framed(found))
        if cut >= len(whole):
            assert found == payloads
    finally:
        os.close(read_end)


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(0, 300))
def test_what_an_older_version_wrote_is_read_by_its_own_sum(payloads: list[bytes], wrong: int) -> None:
    parts = [struct.pack("<II", len(payload), zlib.crc32(payload)) + payload for payload in payloads]
    read_end = os.memfd_create("records")
    try:
        os.write(read_end, b"".join(parts))
        assert read_records(read_end, sum(map(len, parts)))[0] == payloads

        if payloads:
            place = wrong % len(payloads[0])
            os.pwrite(read_end, bytes([payloads[0][place] ^ 1]), len(parts[0]) - len(payloads[0]) + place)
            assert read_records(read_end, sum(map(len, parts)))[0] == []
    finally:
        os.close(read_end)


@given(
    st.lists(st.sampled_from([1, 2, 15, 16, 250]), min_size=1, max_size=5),
    st.sampled_from([0, 8, 240]),
    st.sampled_from([lambda row: row % 3, lambda row: row / 3, lambda row: row % 128]),
    st.booleans(),
)
def test_blocks_that_are_packed_together_are_those_that_are_packed_one_by_one(
    counts: list[int], row_bytes: int, label_of: Callable[[int], Any], has_scores: bool
) -> None:
    blocks = alike(counts, [label_of(row) for row in range(sum(counts))], row_bytes, has_scores=has_scores)

    assert pack_alike(blocks) == [pack(block) for block in blocks]


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ([1, 2], [0, 1, 128]),
        ([2, 1], [0, -40, 1]),
        ([1, 1], [True, "up"]),
        ([1, 1], [0.5, 2]),
        ([251, 1], [0] * 252),
        ([1, 1], [2**70, 1]),
    ],
    ids=["more bytes", "less than none", "texts", "floats and not", "more rows than a block has", "more than 64 bits"],
)
def test_what_is_not_that_much_alike_is_written_one_by_one(
    spools: Callable[..., PayloadSpool], tmp_path: Path, counts: list[int], labels: list[Any]
) -> None:
    blocks, spool, drift = alike(counts, labels, 8), spools(), DriftInMemory()
    assert pack_alike(blocks) is None

    spool.append(blocks)
    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == [f"p{place}/{row}" for place, count in enumerate(counts) for row in range(count)]


def test_more_blocks_than_the_kernel_takes_parts_are_written_at_once(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(max_bytes=4 * 1024**2, segment_bytes=1024**2), DriftInMemory()
    spool.append(alike([1] * 1200, [0] * 1200, 8))
    spool.append([a_record(number) for number in range(2000, 2600)])
    send_all(a_sender(spool, drift, tmp_path))

    assert len(drift.seen) == 1800 and spool.state.dropped == 0


def test_a_file_of_zeros_holds_no_records(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(bytes(4096))
    with path.open("rb") as handle:
        assert read_records(handle.fileno(), 4096) == ([], 0)


def test_drift_gets_every_record_once_in_order_and_files_go(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(segment_bytes=2 * KIB), DriftInMemory()
    for number in range(100):
        spool.append([a_record(number)])

    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == [f"p{number}/0" for number in range(100)]
    assert set(drift.seen.values()) == {1}
    assert spool.state.pending_bytes == 0
    assert len(list((tmp_path / "spool").glob("*.events"))) == 2, "the newest, and one that is written over next"


def test_batches_are_bounded_by_rows(spools: Callable[..., PayloadSpool], tmp_path: Path) -> None:
    spool, drift = spools(max_bytes=8192 * KIB, segment_bytes=4096 * KIB), DriftInMemory()
    rows = {"rows": 50, "values": (0.5, "") * 50, "predictions": [1] * 50}
    spool.append([a_record(number)._replace(**rows) for number in range(104)])

    send_all(a_sender(spool, drift, tmp_path))

    assert (drift.batches, drift.as_json) == ([5000, 200], [])


def test_batches_are_bounded_by_bytes(spools: Callable[..., PayloadSpool], tmp_path: Path) -> None:
    spool, drift = spools(max_bytes=8192 * KIB, segment_bytes=4096 * KIB), DriftInMemory()
    spool.append([a_record(number, "x" * 160 * KIB) for number in range(12)])

    send_all(a_sender(spool, drift, tmp_path))

    assert drift.batches == [5, 5, 2]


def test_while_drift_is_away_records_wait_and_a_restart_sends_them(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(), DriftInMemory()
    drift.failure = lambda batch: Unavailable("away")
    spool.append([a_record(1), a_record(2)])
    with pytest.raises(Unavailable):
        a_sender(spool, drift, tmp_path).send_once()
    spool.close()

    drift.failure = lambda batch: None
    again = spools()
    again.append([a_record(3)])
    send_all(a_sender(again, drift, tmp_path))

    assert drift.seen == {"p1/0": 1, "p2/0": 1, "p3/0": 1}


def test_what_was_acknowledged_is_not_sent_again_after_a_restart(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(), DriftInMemory()
    spool.append([a_record(1)])
    send_all(a_sender(spool, drift, tmp_path))
    spool.append([a_record(2)])
    spool.close()

    send_all(a_sender(spools(), drift, tmp_path))

    assert drift.seen == {"p1/0": 1, "p2/0": 1}


def test_a_lost_acknowledgement_means_sending_again_never_losing(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(), DriftInMemory()
    spool.append([a_record(1)])
    batch = spool.read_blocks(10, KIB)
    assert batch is not None
    a_sender(spool, drift, tmp_path)._send(batch)  # killed before ``sent``
    spool.close()

    send_all(a_sender(spools(), drift, tmp_path))

    assert drift.seen == {"p1/0": 2}


@pytest.mark.parametrize("error", [Invalid("no"), TooLarge("no"), Conflict("no")], ids=["invalid", "large", "conflict"])
def test_a_record_that_drift_never_takes_is_set_aside_and_the_others_arrive(
    spools: Callable[..., PayloadSpool], tmp_path: Path, error: ModelyardError
) -> None:
    spool, drift = spools(), DriftInMemory()
    drift.failure = lambda batch: error if any(event.id == "p13/0" for event in batch.events) else None
    spool.append([a_record(number) for number in range(50)])

    send_all(a_sender(spool, drift, tmp_path))

    assert len(drift.seen) == 49
    assert [json.loads(line)["id"] for line in (tmp_path / "refused.jsonl").read_text().splitlines()] == ["p13/0"]


def test_a_full_spool_drops_and_counts_and_takes_again_once_there_is_room(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(max_bytes=8 * KIB, segment_bytes=2 * KIB), DriftInMemory()
    for number in range(100):
        spool.append([a_record(number)])

    state = spool.state
    send_all(a_sender(spool, drift, tmp_path))
    spool.append([a_record(1000)])
    send_all(a_sender(spool, drift, tmp_path))

    assert state.size_bytes <= 8 * KIB
    assert 0 < state.dropped < 100
    assert state.problem is not None and "full" in state.problem
    assert len(drift.seen) == 100 - state.dropped + 1
    assert spool.check() is None


def test_a_disk_without_space_drops_and_counts_and_leaves_no_torn_record(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    full = threading.Event()

    def write(fd: int, parts: Sequence[bytes], start: int) -> int:
        if full.is_set():
            os.pwrite(fd, parts[0][:7], start)  # the last bytes that fitted
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwritev(fd, parts, start)

    spool, drift = spools(write=write), DriftInMemory()
    spool.append([a_record(1)])
    full.set()
    spool.append([a_record(2)])
    problem = spool.check()
    full.clear()
    spool.append([a_record(3)])

    send_all(a_sender(spool, drift, tmp_path))

    assert problem == "the spool cannot be written: No space left on device"
    assert list(drift.seen) == ["p1/0", "p3/0"]
    assert (spool.check(), spool.state.dropped) == (None, 1)


def test_a_write_in_part_is_a_drop(spools: Callable[..., PayloadSpool], tmp_path: Path) -> None:
    short = iter([True, False])
    spool = spools(write=lambda fd, parts, start: os.pwrite(fd, b"".join(parts)[: 9 if next(short) else None], start))
    drift = DriftInMemory()

    spool.append([a_record(1)])
    spool.append([a_record(2)])
    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == ["p2/0"]


def test_behind_a_torn_record_that_cannot_be_cut_a_new_file_begins(
    spools: Callable[..., PayloadSpool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, parts: Sequence[bytes], start: int) -> int:
        return os.pwrite(fd, b"".join(parts)[: 9 if is_broken else None], start)

    def refused(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    is_broken = False
    spool, drift = spools(write=write), DriftInMemory()
    spool.append([a_record(1)])
    is_broken = True
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", refused)
        spool.append([a_record(2)])
    is_broken = False
    spool.append([a_record(3)])
    spool.append([a_record(4)])

    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == ["p1/0", "p3/0", "p4/0"]
    assert len(list((tmp_path / "spool").glob("*.events"))) == 1


def test_a_file_that_cannot_be_synced_keeps_no_other_from_it_and_is_tried_again(
    spools: Callable[..., PayloadSpool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(fd: int) -> None:
        asked.append(fd)
        if is_broken:
            raise OSError(errno.EIO, "Input/output error")

    asked: list[int] = []
    is_broken = True
    monkeypatch.setattr(os, "fdatasync", sync)
    spool = spools(segment_bytes=KIB)
    for number in range(12):
        spool.append([a_record(number)])

    with pytest.raises(OSError, match="Input/output error"):
        spool.sync()
    tried, is_broken = set(asked), False
    asked.clear()
    spool.sync()
    spool.sync()

    assert len(tried) > 1
    assert len(asked) == 1, "the one that is still written to"


def test_a_torn_end_is_cut_at_the_last_whole_record(spools: Callable[..., PayloadSpool], tmp_path: Path) -> None:
    spool = spools()
    spool.append([a_record(1), a_record(2)])
    spool.close()
    (segment,) = (tmp_path / "spool").glob("*.events")
    with segment.open("r+b") as handle:
        handle.truncate(segment.stat().st_size - 5)

    again, drift = spools(), DriftInMemory()
    again.append([a_record(3)])
    send_all(a_sender(again, drift, tmp_path))

    assert list(drift.seen) == ["p1/0", "p3/0"]


def test_damage_inside_an_older_file_does_not_hold_up_the_rest(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool = spools(segment_bytes=KIB)
    for number in range(10):
        spool.append([a_record(number)])
    spool.close()
    first = min((tmp_path / "spool").glob("*.events"))
    content = bytearray(first.read_bytes())
    content[20] ^= 0xFF
    first.write_bytes(content)

    again, drift = spools(segment_bytes=KIB), DriftInMemory()
    send_all(a_sender(again, drift, tmp_path))

    assert "p0/0" not in drift.seen
    assert "p9/0" in drift.seen


def test_two_processes_do_not_share_a_spool(spools: Callable[..., PayloadSpool]) -> None:
    spools()

    with pytest.raises(Conflict, match="own data_dir"):
        spools()


def test_the_loop_sends_soon_after_a_write_and_flushes_at_the_end(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift, stop = spools(), DriftInMemory(), threading.Event()
    sender = a_sender(spool, drift, tmp_path)
    spool.appended = sender.wake
    loop = threading.Thread(target=sender.run, args=(stop,))
    loop.start()
    spool.append([a_record(1)])
    eventually(lambda: "p1/0" in drift.seen, 2)
    drift.failure = lambda batch: Unavailable("away")
    spool.append([a_record(2)])
    eventually(lambda: sender.check() is not None, 2)
    drift.failure = lambda batch: None
    stop.set()
    loop.join(5)

    assert "p2/0" in drift.seen
    assert spool.state.pending_bytes == 0


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_inference_spool import a_record
from modelyard_inference.adapters.payload_spool import PayloadSpool
spool = PayloadSpool(Path(sys.argv[1]), max_bytes=1 << 26, segment_bytes=1 << 14)
number = 0
while True:
    spool.append([a_record(number)])
    print(number, flush=True)
    number += 1
"""


def test_after_kill_9_every_record_whose_response_left_is_there(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "spool"), here], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    answered = [int(writer.stdout.readline()) for _ in range(300)]
    writer.send_signal(signal.SIGKILL)
    answered += [int(line) for line in writer.stdout.read().splitlines() if line]
    writer.wait()
    writer.stdout.close()

    spool, drift = PayloadSpool(tmp_path / "spool", max_bytes=1 << 26, segment_bytes=1 << 14), DriftInMemory()
    send_all(a_sender(spool, drift, tmp_path))
    spool.close()

    assert {f"p{number}/0" for number in answered} <= drift.seen.keys()
    assert set(drift.seen.values()) == {1}


VALUES = st.one_of(st.floats(allow_nan=False), st.integers(-(2**63), 2**64 - 1), st.text("aé0", max_size=4), st.none())
NUMBERS = st.floats(allow_infinity=False)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    count, width = draw(st.integers(1, 12)), draw(st.integers(0, 3))
    flat: Any = {"min_size": count * width, "max_size": count * width}
    in_bytes = st.lists(NUMBERS, **flat).map(lambda numbers: struct.pack(f"<{count * width}d", *numbers))
    times = draw(st.sampled_from([1, count]))
    return a_record(draw(st.integers(0, 9)))._replace(
        rows=count,
        event_times=tuple(NOW + timedelta(seconds=second) for second in range(times)),
        names=tuple(f"feature-{number}" for number in range(width)),
        values=draw(st.one_of(st.lists(VALUES, **flat), in_bytes)),
        predictions=draw(st.sampled_from([(), tuple(range(count))])),
        scores=draw(st.sampled_from([None, [0.5] * count])),
        traceparent=draw(st.sampled_from([None, f"00-{'a' * 32}-{'b' * 16}-01"])),
    )


@given(blocks(), st.integers(1, 13))
def test_a_block_is_read_as_its_events_also_in_parts(block: Block, most: int) -> None:
    parts = list(block.parts(most))
    stays = {"queue_ms": block.queue_ms} | ({} if block.traceparent is None else {"traceparent": block.traceparent})

    assert all(part.rows <= most and not list(part.misfits()) for part in parts)
    assert [event for part in parts for event in part.events()] == list(block.events())
    packed = pack(block)
    assert unpack(packed) == [msgspec.json.encode(event | stays) for event in block.events()]
    assert (rows_of(packed), traceparent_of(packed)) == (block.rows, block.traceparent)


@given(st.lists(NUMBERS, min_size=6, max_size=6))
def test_values_in_bytes_are_the_same_as_in_a_list(numbers: list[float]) -> None:
    in_list = a_record(1)._replace(
        rows=3,
        values=[None if isnan(number) else number for number in numbers],
        predictions=(0, 1, 0),
    )
    in_bytes = in_list._replace(values=struct.pack("<6d", *numbers))

    assert list(in_bytes.events()) == list(in_list.events())
    assert unpack(pack(in_bytes)) == unpack(pack(in_list))


def test_integers_past_all_bounds_are_written_as_the_model_took_them() -> None:
    (record,) = unpack(pack(a_record(1)._replace(values=(10**30, ""))))

    assert json.loads(record)["features"] == {"load": 1e30, "day": ""}


def test_integers_past_all_bounds_that_a_model_answers_are_written_beside_values_in_bytes() -> None:
    block = a_record(1)._replace(values=struct.pack("<2d", 0.5, 2.0), predictions=[2**70], scores=[-(2**70)])

    (record,) = map(json.loads, unpack(pack(block)))

    assert record["features"] == {"load": 0.5, "day": 2.0}
    assert (record["prediction"], record["score"]) == (2.0**70, -(2.0**70))


@pytest.mark.parametrize("answered", [10**400, object(), "\ud800"], ids=["integer", "object", "half of a character"])
def test_an_answer_that_has_no_form_in_bytes_is_dropped_and_those_beside_it_are_written(
    spools: Callable[..., PayloadSpool], tmp_path: Path, answered: Any
) -> None:
    spool, drift = spools(), DriftInMemory()
    count = metrics.EVENTS_DROPPED.labels("form")._value
    before = count.get()
    wrong = a_record(2)._replace(rows=300, values=(0.5, "") * 300, predictions=[1] * 299 + [answered])

    spool.append([a_record(1), wrong, a_record(3)])
    spool.append([wrong])
    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == ["p1/0", "p3/0"]
    assert spool.state.dropped == count.get() - before == 600
    assert spool.check() is None


def write_former(folder: Path, payloads: Sequence[bytes]) -> None:
    folder.mkdir()
    (folder / "000000000001.events").write_bytes(framed(payloads))


def test_a_spool_of_rows_in_json_as_they_were_written_once_is_still_sent(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    former = [row for number in range(3) for row in unpack(pack(a_record(number)))]
    write_former(tmp_path / "spool", [former[0], pack(a_record(3)), *former[1:]])
    spool, drift = spools(), DriftInMemory()
    spool.append([a_record(4)])

    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == [f"p{number}/0" for number in (0, 3, 1, 2, 4)]
    assert (drift.batches, drift.as_json) == ([1, 1], [1, 2])


def test_a_block_that_ended_sooner_once_is_still_sent_as_it_is(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    write_former(tmp_path / "spool", [msgspec.msgpack.encode(tuple(a_record(1))[:16])])
    drift = DriftInMemory()

    send_all(a_sender(spools(), drift, tmp_path))

    assert (list(drift.seen), drift.batches, drift.as_json) == (["p1/0"], [1], [])


@pytest.mark.parametrize(
    "unknown", [["a", "b"], ["a", 1, "c"], {}, [*a_record(0), "new"]], ids=["no-rows", "cut", "object", "longer"]
)
def test_a_block_of_a_version_to_come_does_not_hold_up_what_follows(
    spools: Callable[..., PayloadSpool], tmp_path: Path, unknown: Any
) -> None:
    write_former(tmp_path / "spool", [msgspec.msgpack.encode(unknown), pack(a_record(1))])
    drift = DriftInMemory()

    send_all(a_sender(spools(), drift, tmp_path))

    assert list(drift.seen) == ["p1/0"]


def test_many_rows_of_one_answer_are_sent_in_batches_of_the_usual_size(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(segment_bytes=500 * KIB), DriftInMemory()
    spool.append([a_record(1)._replace(rows=5201, values=(0.5, "") * 5201, predictions=[1] * 5201)])

    send_all(a_sender(spool, drift, tmp_path))

    assert drift.batches == [5000, 201]
    assert set(drift.seen) == {f"p1/{row}" for row in range(5201)}


def test_of_a_block_that_drift_refuses_the_wrong_rows_are_set_aside(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(segment_bytes=500 * KIB), DriftInMemory()
    wrong = {"p1/7", "p1/123"}
    drift.failure = lambda batch: Invalid("no") if wrong & {event.id for event in batch.events} else None
    spool.append(
        [a_record(0), a_record(1)._replace(rows=200, values=(0.5, "") * 200, predictions=[1] * 200), a_record(2)]
    )

    send_all(a_sender(spool, drift, tmp_path))

    assert drift.seen.keys() == {"p0/0", "p2/0", *(f"p1/{row}" for row in range(200))} - wrong
    assert drift.batches == [1, 1]
    assert {json.loads(line)["id"] for line in (tmp_path / "refused.jsonl").read_text().splitlines()} == wrong


def test_a_drift_that_takes_no_blocks_gets_json_and_is_asked_again_after_a_while(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift, clock = spools(max_bytes=8192 * KIB, segment_bytes=4096 * KIB), DriftInMemory(), FakeClock(NOW)
    drift.knows_blocks = False
    dead = DeadLetters(tmp_path / "refused.jsonl")
    sender = EventSender(spool, drift, dead, source="test", monotonic=clock.monotonic)
    spool.append([a_record(number) for number in range(1201)])
    send_all(sender)
    first, drift.as_json = drift.as_json, []

    drift.knows_blocks = True
    clock.advance(59)
    spool.append([a_record(2001)])
    send_all(sender)
    clock.advance(2)
    spool.append([a_record(2002)])
    send_all(sender)

    assert (first, drift.as_json, drift.batches) == ([500, 500, 201], [1], [1])
    assert len(drift.seen) == 1203 and set(drift.seen.values()) == {1}


def test_a_batch_knows_whether_more_lies_behind_it(spools: Callable[..., PayloadSpool]) -> None:
    spool = spools()
    spool.append([a_record(1), a_record(2)])

    first = spool.read_blocks(1, KIB)
    assert first is not None
    spool.sent(first.after)
    last = spool.read_blocks(1, KIB)
    assert last is not None
    spool.sent(last.after)

    assert (first.more, last.more, spool.read_blocks(1, KIB)) == (True, False, None)


def in_files(tmp_path: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((tmp_path / "spool").glob("*.events")))


def test_what_was_written_is_sent_as_it_lies_there(
    spools: Callable[..., PayloadSpool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is looked at and framed again has the same bytes: only that nobody looks tells them apart.
    monkeypatch.setattr(PayloadSpool, "read_blocks", lambda *asked: None)
    spool, drift = spools(segment_bytes=512 * KIB), DriftInMemory()
    for number in range(100):
        spool.append([a_record(3 * number), a_record(3 * number + 1), a_record(3 * number + 2)])

    send_all(a_sender(spool, drift, tmp_path))

    assert drift.bodies == [in_files(tmp_path)]
    assert list(drift.seen) == [f"p{number}/0" for number in range(300)]


def test_what_a_former_process_wrote_is_read_and_what_follows_is_sent_as_it_lies_there(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    first = spools()
    first.append([a_record(0)])
    first.close()
    spool, drift = spools(), DriftInMemory()
    spool.append([a_record(1)])

    assert spool.read_written(10, KIB) is None
    sender = a_sender(spool, drift, tmp_path)
    assert sender.send_once()

    assert spool.read_written(10, KIB) is not None
    send_all(sender)
    assert list(drift.seen) == ["p0/0", "p1/0"]
    assert drift.bodies[1:] == [in_files(tmp_path)]


def test_a_piece_that_is_damaged_on_the_disk_is_found_by_drift_and_the_others_arrive(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(), DriftInMemory()
    for number in range(20):
        spool.append([a_record(number)])
    (file,) = (tmp_path / "spool").glob("*.events")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    lost = metrics.SPOOL_DAMAGED._value.get()

    send_all(a_sender(spool, drift, tmp_path))
    spool.append([a_record(20)])
    send_all(a_sender(spool, drift, tmp_path))

    assert metrics.SPOOL_DAMAGED._value.get() > lost
    assert list(drift.seen) == [*(f"p{number}/0" for number in range(len(drift.seen) - 1)), "p20/0"]
    assert 5 < len(drift.seen) < 15
    assert not (tmp_path / "refused.jsonl").exists()


def test_a_file_that_is_gone_is_not_sent_and_what_follows_is(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(segment_bytes=KIB), DriftInMemory()
    for number in range(20):
        spool.append([a_record(number)])
    oldest = min((tmp_path / "spool").glob("*.events"))
    gone = len(list(payloads_in(oldest.read_bytes())))
    oldest.unlink()

    send_all(a_sender(spool, drift, tmp_path))

    assert list(drift.seen) == [f"p{number}/0" for number in range(gone, 20)]


@pytest.mark.parametrize("call", ["open", "pread"])
def test_a_file_that_cannot_be_read_for_a_moment_is_sent_later(
    spools: Callable[..., PayloadSpool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spool, drift = spools(segment_bytes=KIB), DriftInMemory()
    for number in range(20):
        spool.append([a_record(number)])
    sender, lost = a_sender(spool, drift, tmp_path), metrics.SPOOL_DAMAGED._value.get()

    def refused(*asked: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refused)
        for reads in (sender.send_once, lambda: spool.read(10, DRIFT), lambda: spool.read_blocks(10, KIB)):
            with pytest.raises(Unavailable, match="the spool cannot be read: Too many open files"):
                reads()
    send_all(sender)

    assert list(drift.seen) == [f"p{number}/0" for number in range(20)]
    assert metrics.SPOOL_DAMAGED._value.get() == lost


def test_pieces_are_bounded_by_rows_and_bytes(spools: Callable[..., PayloadSpool]) -> None:
    spool = spools(segment_bytes=512 * KIB)
    for number in range(600):
        spool.append([a_record(number)])

    def read(most_rows: int, most_bytes: int) -> list[int]:
        found = []
        while (written := spool.read_written(most_rows, most_bytes)) is not None and not found:
            assert len(written.frames) <= most_bytes
            found.append(len(list(payloads_in(written.frames))))
            spool.sent(written.after)
        return found

    size = sum(framed_bytes(pack(a_record(number))) for number in range(250))
    assert read(1000, size + 100) == [250]
    assert read(250, KIB**2) == [250]
    assert spool.read_written(10, KIB**2) is None  # they were written as one piece, which has more


def test_a_long_answer_is_not_sent_in_one_piece(spools: Callable[..., PayloadSpool], tmp_path: Path) -> None:
    spool, drift = spools(), DriftInMemory()
    count = 10_001
    long = a_record(0)._replace(rows=count, values=[0.5, "x"] * count, predictions=[1] * count)
    spool.append([long])
    spool.append([a_record(1)])

    sender = a_sender(spool, drift, tmp_path)
    while spool.read_written(5000, KIB**2) is None:
        assert sender.send_once()  # block by block, up to what was written behind it

    send_all(sender)
    assert len(drift.seen) == count + 1
    assert max(drift.batches) <= 5000
    assert drift.batches[-1] == 1


def test_what_comes_after_a_refused_piece_is_sent_as_it_lies_there_again(
    spools: Callable[..., PayloadSpool], tmp_path: Path
) -> None:
    spool, drift = spools(max_bytes=16 * KIB**2, segment_bytes=8 * KIB**2), DriftInMemory()
    for number in range(3000):
        spool.append([a_record(number, "x" * 1000)])
    drift.failure = lambda batch: Invalid("no") if any(e.id == "p7/0" for e in batch.events) else None
    sender = a_sender(spool, drift, tmp_path)
    assert sender.send_once()
    looked_at = len(drift.bodies)

    send_all(sender)

    assert len(drift.bodies) - looked_at <= 4
    assert len(drift.seen) == 2999


def test_a_stamp_lies_in_a_block_where_its_fields_are() -> None:
    block = a_record(3, "x", traceparent="00-1")._replace(scores=(0.25,), error="no", first_row=2, queue_ms=0.5)
    stamp = Stamp(block[_MODEL:_VALUES], block[_ERROR:])

    assert stamp.block("p3", 1, block.values, block.predictions, block.scores) == block
