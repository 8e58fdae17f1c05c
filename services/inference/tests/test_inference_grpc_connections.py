"""gRPC within HTTP/2, frame by frame: what callers send that the usual libraries never would, and bounds."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import grpc
import pytest
from grpc_talk import Stage, Talk, a_stage, framed, say_back_each
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference_fakes import eventually
from modelyard_common.bodies import FREE_BYTES, HeldBytes
from modelyard_common.errors import Invalid, ModelyardError, TooLarge
from modelyard_inference.api.codecs.bounds import LARGE_BYTES
from modelyard_inference.api.grpc.calls import Call, Method
from modelyard_inference.api.grpc.framing import Packed, header_text, seconds_of, whole_messages
from modelyard_inference.api.grpc.status import StatusCode


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with a_stage() as found:
        yield found


@given(
    messages=st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 1)), max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
def test_messages_are_the_same_however_they_are_cut(messages: list[tuple[bytes, int]], cuts: list[int]) -> None:
    content = b"".join(itertools.starmap(framed, messages))
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    partial, found = bytearray(), []

    for start, end in itertools.pairwise(edges):
        found += whole_messages(partial, content[start:end], 100, b"gzip")

    assert ([(one, isinstance(one, Packed)) for one in found], bytes(partial)) == (messages, b"")


def test_what_a_message_says_of_itself_is_judged_before_it_is_there() -> None:
    with pytest.raises(TooLarge, match="101 bytes"):
        whole_messages(bytearray(), framed(b"x" * 101)[:5], 100, b"gzip")
    for packed, encoding in ((1, b"identity"), (2, b"gzip")):
        with pytest.raises(ModelyardError, match="flag of a message must be 0, or 1 where grpc-encoding"):
            whole_messages(bytearray(), framed(b"x", packed)[:5], 100, encoding)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"1S", 1), (b"20m", 0.02), (b"5u", 5e-6), (b"99999999n", 0.099999999)],
)
def test_timeouts_are_read(text: bytes, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"123456789S", b"-1S", b"1s", b"1.5S", "٣S".encode()])
def test_other_timeouts_are_refused(text: bytes) -> None:
    with pytest.raises(Invalid, match="grpc-timeout"):
        seconds_of(text)


@given(text=st.text(max_size=100))
def test_texts_survive_their_header(text: str) -> None:
    written = header_text(text)

    assert unquote_to_bytes(written) == text.encode()
    assert all(0x20 <= byte <= 0x7E for byte in written)


def test_status_codes_are_those_of_the_protocol() -> None:
    assert {code.name: int(code) for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}


def test_a_message_may_come_byte_by_byte(stage: Stage) -> None:
    with Talk(stage.port) as talk:
        stream, content = talk.call(), framed(b"slow")
        for place in range(len(content)):
            talk.send(stream, content[place : place + 1], end=place == len(content) - 1)

        assert talk.end_of(stream) == {b"grpc-status": b"0", b"said": b"back"}
        assert talk.body(stream) == content
        assert talk.head(stream)[b"content-type"] == b"application/grpc"


def test_an_answer_waits_for_the_window_of_its_caller(stage: Stage) -> None:
    message = bytes(range(256)) * 40
    with Talk(stage.port, window=1000) as talk:
        stream = talk.ask(message)
        talk.until(lambda: len(talk.body(stream)) >= 1000)
        before = len(talk.body(stream))
        other = talk.ask(b"small")
        assert talk.status(other) == 0
        assert len(talk.body(stream)) == before == 1000

        talk.http2.increment_flow_control_window(20_000, stream)
        talk.flush()

        assert talk.status(stream) == 0
        assert talk.body(stream) == framed(message)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", StatusCode.UNIMPLEMENTED),
        (framed(b"one") + framed(b"two"), StatusCode.UNIMPLEMENTED),
        (framed(b"whole")[:-1], StatusCode.INTERNAL),
        (framed(b"packed", packed=1), StatusCode.INTERNAL),
    ],
    ids=["no message", "two messages", "half a message", "packed by itself"],
)
def test_what_is_not_one_message_is_refused(stage: Stage, content: bytes, status: StatusCode) -> None:
    with Talk(stage.port) as talk:
        stream = talk.call()
        talk.send(stream, content)

        assert talk.status(stream) == status
        assert talk.status(talk.ask(b"next")) == 0


def test_a_message_that_is_too_large_is_refused_before_it_is_sent(stage: Stage) -> None:
    with Talk(stage.port) as talk:
        stream = talk.call()
        talk.send(stream, framed(b"x" * ((1 << 20) + 1))[:100], end=False)

        assert talk.status(stream) == StatusCode.RESOURCE_EXHAUSTED
        assert talk.reset_of(stream) == ErrorCodes.NO_ERROR


@pytest.mark.parametrize(
    ("changes", "status"),
    [({":method": "GET"}, b"405"), ({"content-type": "application/json"}, b"415"), ({"content-type": None}, b"415")],
    ids=["GET", "JSON", "nothing"],
)
def test_what_is_not_grpc_is_told_so_in_http(stage: Stage, changes: dict[str, str | None], status: bytes) -> None:
    with Talk(stage.port) as talk:
        assert talk.end_of(talk.call(**changes))[b":status"] == status


@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [
        ("/t/Nothing", {}, StatusCode.UNIMPLEMENTED),
        ("/t/Back", {"grpc-encoding": "snappy"}, StatusCode.UNIMPLEMENTED),
        ("/t/Each", {"grpc-encoding": "snappy"}, StatusCode.UNIMPLEMENTED),
        ("/t/Back", {"grpc-timeout": "soon"}, StatusCode.INVALID_ARGUMENT),
    ],
)
def test_calls_that_cannot_be_answered_end_at_once(
    stage: Stage, path: str, changes: dict[str, str], status: StatusCode
) -> None:
    with Talk(stage.port) as talk:
        stream = talk.call(path, **changes)

        assert talk.status(stream) == status
        assert talk.head(stream)[b"grpc-accept-encoding"] == b"identity,deflate,gzip"


PACKS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def send_packed(talk: Talk, path: str, encoding: str, *packed: bytes) -> int:
    """Send messages that say that they are packed, in one go; return their stream."""
    stream = talk.call(path, **{"grpc-encoding": encoding})
    talk.send(stream, b"".join(framed(one, packed=1) for one in packed))
    return stream


@pytest.mark.parametrize("encoding", PACKS)
def test_packed_messages_are_unpacked(stage: Stage, encoding: str) -> None:
    pack = PACKS[encoding]
    with Talk(stage.port) as talk:
        one = send_packed(talk, "/t/Back", encoding, pack(b"one"))
        each = send_packed(talk, "/t/Each", encoding, pack(b"one"), pack(b""), pack(b"two"))
        plain = talk.ask(b"one", **{"grpc-encoding": encoding})

        assert [talk.status(stream) for stream in (one, each, plain)] == [0, 0, 0]
        assert talk.body(one) == talk.body(plain) == framed(b"one")
        assert talk.body(each) == framed(b"one") + framed(b"") + framed(b"two")


@pytest.mark.parametrize("path", ["/t/Back", "/t/Each"])
@pytest.mark.parametrize(
    ("encoding", "content", "status"),
    [
        ("gzip", b"", StatusCode.INTERNAL),
        ("gzip", b"plain", StatusCode.INTERNAL),
        ("gzip", gzip.compress(b"whole")[:-1], StatusCode.INTERNAL),
        ("gzip", gzip.compress(b"whole") + b"more", StatusCode.INTERNAL),
        ("gzip", zlib.compress(b"deflated"), StatusCode.INTERNAL),
        ("deflate", gzip.compress(b"zipped"), StatusCode.INTERNAL),
        ("identity", gzip.compress(b"zipped"), StatusCode.INTERNAL),
        ("gzip", gzip.compress(bytes((1 << 20) + 1)), StatusCode.RESOURCE_EXHAUSTED),
        ("deflate", zlib.compress(bytes((1 << 20) + 1)), StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["nothing", "plain", "cut", "more", "not gzip", "not deflate", "identity", "gzip bomb", "deflate bomb"],
)
def test_what_is_not_packed_well_ends_its_call(
    stage: Stage, path: str, encoding: str, content: bytes, status: StatusCode
) -> None:
    with Talk(stage.port) as talk:
        assert talk.status(send_packed(talk, path, encoding, content)) == status
        assert talk.status(talk.ask(b"next")) == 0


def a_carrier() -> Any:
    """Return what packed messages need of a carrier; made within an event loop, or used in one alone."""
    return SimpleNamespace(turn=asyncio.Lock())


def a_packed_call(held: HeldBytes, most_bytes: int, *packed: bytes, carrier: Any = None) -> Call:
    """Return a call with all that comes of its stream."""
    method, metadata = Method(say_back_each, streams=True), {b"grpc-encoding": b"gzip"}
    call = Call(carrier or a_carrier(), 1, method, metadata, held.share(), most_bytes)
    call.take(b"".join(framed(one, packed=1) for one in packed))
    call.has_all = True
    return call


def test_a_bomb_is_stopped_while_it_is_unpacked() -> None:
    most = 100_000
    call = a_packed_call(HeldBytes(most), most, gzip.compress(bytes(50_000_000)))

    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="100000 bytes once unpacked"):
            asyncio.run(call.unpacked(call.messages[0]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10 * most


def test_others_have_their_turn_between_packed_messages() -> None:
    told: list[str] = []

    async def receive() -> None:
        call = a_packed_call(HeldBytes(0), 100, *[gzip.compress(b"message")] * 3)
        while (message := await call.receive()) is not None:
            told.append((await call.unpacked(message)).decode())

    async def others() -> None:
        for _ in range(3):
            told.append("other")
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(receive(), others())

    asyncio.run(both())

    assert told == ["other", "message"] * 3


def test_of_all_calls_one_message_is_unpacked_in_a_turn() -> None:
    told: list[str] = []
    carrier = a_carrier()

    async def unpack() -> None:
        call = a_packed_call(HeldBytes(0), 100, gzip.compress(b"message"), carrier=carrier)
        told.append((await call.unpacked(call.messages.popleft())).decode())

    async def others() -> None:
        for _ in range(8):
            told.append("other")
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(others(), *[unpack() for _ in range(3)])

    asyncio.run(all_of_them())

    assert told.count("message") == 3
    assert ("message", "message") not in itertools.pairwise(told)


@pytest.mark.parametrize(
    ("packed", "is_long"),
    [
        (gzip.compress(bytes(LARGE_BYTES)), False),
        (gzip.compress(bytes(LARGE_BYTES + 1)), True),
        (gzip.compress(b"") * 3300 + gzip.compress(b"x"), True),
    ],
    ids=["short", "long once unpacked", "long as it comes"],
)
def test_what_takes_long_is_unpacked_apart(packed: bytes, is_long: bool) -> None:
    apart: list[bytes] = []

    async def unpack_apart(unpack: Callable[[], bytes]) -> bytes:
        apart.append(unpack())
        return apart[0]

    call = a_packed_call(HeldBytes(1 << 20), 1 << 20, packed)
    message = asyncio.run(call.unpacked(call.messages.popleft(), unpack_apart))

    assert (message, apart) == (gzip.decompress(packed), [message] if is_long else [])


def test_what_is_unpacked_counts_until_it_is_answered() -> None:
    held, message = HeldBytes(100_000), bytes(90_000)
    packed = gzip.compress(message)
    with a_stage(held=held) as stage, Talk(stage.port) as talk:
        first = send_packed(talk, "/t/Held", "gzip", packed)
        eventually(lambda: stage.do(lambda: held.count) == len(framed(packed) + framed(message)) - FREE_BYTES)

        second = send_packed(talk, "/t/Back", "gzip", packed)
        assert talk.status(second) == StatusCode.RESOURCE_EXHAUSTED

        talk.http2.reset_stream(first, ErrorCodes.CANCEL)
        talk.flush()
        eventually(lambda: stage.do(lambda: held.count) == 0)


def test_packed_messages_that_wait_count_as_they_travel() -> None:
    held, message = HeldBytes(10_000), bytes(10_000)
    with a_stage(held=held) as stage, Talk(stage.port) as talk:
        # Unpacked they would take more than there is room for.
        stream = send_packed(talk, "/t/Each", "gzip", *[gzip.compress(message)] * 6)

        assert talk.status(stream) == 0
        assert talk.body(stream) == framed(message) * 6
        assert stage.do(lambda: held.count) == 0


def test_a_message_that_does_not_come_is_not_waited_for() -> None:
    with a_stage(patience_s=0.2) as stage, Talk(stage.port) as talk:
        stream = talk.call()
        talk.send(stream, framed(b"never all of it")[:7], end=False)

        assert talk.status(stream) == StatusCode.DEADLINE_EXCEEDED
        assert stage.do(lambda: stage.house.calls) == 0


def test_a_deadline_ends_a_call_and_its_work(stage: Stage) -> None:
    before = len(stage.ended)
    with Talk(stage.port) as talk:
        stream = talk.ask(b"x", "/t/Held", **{"grpc-timeout": "100m"})

        assert talk.status(stream) == StatusCode.DEADLINE_EXCEEDED
        assert eventually(lambda: stage.ended[before:]) == ["cancelled"]


@pytest.mark.parametrize("hang_up", ["reset", "close"])
def test_who_hangs_up_is_worked_for_no_more(hang_up: str) -> None:
    with a_stage() as stage, Talk(stage.port) as talk:
        stream = talk.ask(b"x", "/t/Held")
        eventually(lambda: stage.begun)
        if hang_up == "reset":
            talk.http2.reset_stream(stream, ErrorCodes.CANCEL)
            talk.flush()
        else:
            talk.socket.close()

        assert eventually(lambda: stage.ended) == ["cancelled"]
        assert eventually(lambda: stage.do(lambda: stage.house.calls) == 0)


def test_no_more_calls_are_begun_than_may_be() -> None:
    with a_stage(most_calls=2) as stage, Talk(stage.port) as one, Talk(stage.port) as other:
        held = [one.ask(b"x", "/t/Held") for _ in range(2)]
        eventually(lambda: stage.begun == 2)

        assert other.status(other.ask(b"x")) == StatusCode.RESOURCE_EXHAUSTED

        stage.do(stage.held.set)
        assert [one.status(stream) for stream in held] == [0, 0]
        assert other.status(other.ask(b"x")) == 0


def send_pieces(talk: Talk, stream: int, data: bytes) -> None:
    for begin in range(0, len(data), 10_000):
        talk.send(stream, data[begin : begin + 10_000], end=False)


def test_what_calls_have_sent_is_bounded_over_all_of_them() -> None:
    large, held = framed(b"x" * 60_000), HeldBytes(40_000)
    with a_stage(held=held) as stage, Talk(stage.port) as one, Talk(stage.port) as other:
        slow = one.call()
        send_pieces(one, slow, large[:50_000])
        eventually(lambda: stage.do(lambda: held.count) == 50_000 - FREE_BYTES)

        refused = other.call()
        send_pieces(other, refused, large[:60_000])

        assert other.status(refused) == StatusCode.RESOURCE_EXHAUSTED
        assert other.status(other.ask(b"x" * 16_000)) == 0, "small ones are answered also then"
        one.send(slow, large[50_000:])
        assert one.status(slow) == 0
        eventually(lambda: stage.do(lambda: held.count) == 0)


@pytest.mark.parametrize("path", ["/t/Held", "/t/Each"])
def test_who_hangs_up_within_a_message_makes_room(path: str) -> None:
    held = HeldBytes(100_000)
    with a_stage(held=held) as stage:
        with Talk(stage.port) as talk:
            send_pieces(talk, talk.call(path), framed(b"x" * 60_000)[:50_000])
            eventually(lambda: stage.do(lambda: held.count) == 50_000 - FREE_BYTES)

        eventually(lambda: stage.do(lambda: held.count) == 0)


def test_a_long_stream_does_not_fill_the_room() -> None:
    held = HeldBytes(10_000)
    with a_stage(held=held) as stage, Talk(stage.port) as talk:
        stream, message = talk.call("/t/Each"), framed(b"x" * 6_000)
        for _ in range(10):
            before = len(talk.body(stream))
            talk.send(stream, message[:3_000], end=False)
            talk.send(stream, message[3_000:], end=False)
            talk.until(lambda before=before: len(talk.body(stream)) >= before + len(message))

        talk.http2.end_stream(stream)
        talk.flush()
        assert talk.status(stream) == 0
        eventually(lambda: stage.do(lambda: held.count) == 0)


def test_messages_that_wait_behind_an_answer_count() -> None:
    held, message = HeldBytes(10_000), framed(b"x" * 20_000)
    with a_stage(held=held) as stage, Talk(stage.port, window=0) as talk:
        # The window of the connection, that the server tells first, lets more through than one stream needs.
        talk.until(lambda: talk.http2.remote_settings.initial_window_size > 65_535)
        talk.until(lambda: talk.http2.outbound_flow_control_window > 65_535)
        stream = talk.call("/t/Each")
        for _ in range(2):
            send_pieces(talk, stream, message)
        eventually(lambda: stage.do(lambda: held.count) == 2 * len(message) - FREE_BYTES)

        send_pieces(talk, stream, message)

        # There is no room for it, so the call is over; its caller takes no answer, and is told so later.
        eventually(lambda: stage.do(lambda: held.count) == 0)


def test_a_method_that_takes_one_message_refuses_the_second_at_once(stage: Stage) -> None:
    with Talk(stage.port) as talk:
        whole, partial = talk.call(), talk.call()
        talk.send(whole, framed(b"one") + framed(b"two"), end=False)
        talk.send(partial, framed(b"one") + framed(b"two")[:4], end=False)

        assert [talk.status(stream) for stream in (whole, partial)] == [StatusCode.UNIMPLEMENTED] * 2


def test_a_stream_may_pause_between_messages_and_not_within_one() -> None:
    with a_stage(patience_s=0.5) as stage, Talk(stage.port) as talk:
        pauses, stalls = talk.call("/t/Each"), talk.call("/t/Each")
        talk.send(pauses, framed(b"one"), end=False)
        talk.send(stalls, framed(b"one") + framed(b"two")[:4], end=False)

        assert talk.status(stalls) == StatusCode.DEADLINE_EXCEEDED
        talk.send(pauses, framed(b"two"))
        assert talk.status(pauses) == 0
        assert talk.body(pauses) == framed(b"one") + framed(b"two")


def test_a_connection_without_calls_makes_room() -> None:
    with a_stage(most_connections=2) as stage, Talk(stage.port) as busy, Talk(stage.port) as idle:
        stream = busy.ask(b"x", "/t/Held")
        assert idle.status(idle.ask(b"x")) == 0
        with Talk(stage.port) as late:
            assert late.status(late.ask(b"x")) == 0
            assert idle.is_ended()
            stage.do(stage.held.set)
            assert busy.status(stream) == 0


def test_a_stream_that_is_not_read_is_not_written_for_ever(stage: Stage) -> None:
    message = b"x" * 30_000
    with Talk(stage.port, window=1000) as talk:
        stream = talk.call("/t/Each")
        sent = 0
        while talk.http2.local_flow_control_window(stream) > len(message) + 5 and sent < 100:
            talk.until(lambda: True)
            for start in range(0, len(message) + 5, 16_000):
                talk.send(stream, framed(message)[start : start + 16_000], end=False)
            sent += 1

        # Nobody takes the first answer, so that not all of the others are taken in.
        assert 0 < sent < 100


def test_calls_in_flight_are_finished_when_the_server_stops() -> None:
    with a_stage() as stage, Talk(stage.port) as talk:
        stream = talk.ask(b"x", "/t/Held")
        eventually(lambda: stage.begun)
        stage.do(lambda: [one.close() for one in stage.house.connections])
        raw = talk.socket.recv(65_536)
        while b"goodbye!" not in raw:
            raw += talk.socket.recv(65_536)
        assert GoAwayFrame(0, last_stream_id=2**31 - 1).serialize() in raw

        # The caller has not read that yet, and what it sent meanwhile is taken.
        other = talk.ask(b"y")
        stage.do(stage.held.set)
        answers = b""
        while data := talk.socket.recv(65_536):
            answers += data

    assert framed(b"x") in answers and framed(b"y") in answers
    assert GoAwayFrame(0, last_stream_id=other).serialize() in answers
    assert stream < other


def test_who_says_goodbye_still_gets_its_answers() -> None:
    with a_stage() as stage, Talk(stage.port) as talk:
        talk.ask(b"x", "/t/Held")
        eventually(lambda: stage.begun)
        talk.socket.sendall(GoAwayFrame(0, last_stream_id=0).serialize())
        eventually(lambda: stage.do(lambda: all(one._is_saying_goodbye for one in stage.house.connections)))  # type: ignore[attr-defined]
        stage.do(stage.held.set)

        answers = b""
        while data := talk.socket.recv(65_536):
            answers += data

    assert framed(b"x") in answers


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    noise=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60)), max_size=8
    )
)
def test_frames_of_any_kind_leave_the_server_serving(stage: Stage, noise: list[tuple[int, int, int, bytes]]) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frames = [
        len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body
        for kind, flags, stream, body in noise
    ]
    with socket.create_connection(("127.0.0.1", stage.port), 10) as caller:
        caller.sendall(preface + b"\0\0\0\4\0\0\0\0\0" + b"".join(frames))
        caller.shutdown(socket.SHUT_WR)
        caller.settimeout(10)
        try:
            while caller.recv(65_536):
                pass
        except ConnectionResetError:
            pass

    with Talk(stage.port) as talk:
        assert talk.status(talk.ask(b"still here")) == 0
