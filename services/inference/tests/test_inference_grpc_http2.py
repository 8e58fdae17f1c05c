"""HTTP/2 as far as gRPC needs it: heads are what their caller wrote, and who breaks the protocol is told how."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hpack import Encoder
from hyperframe.frame import Frame
from hypothesis import given
from hypothesis import strategies as st
from modelyard_inference.api.grpc.frames import ErrorCode, Http2Error, block_of
from modelyard_inference.api.grpc.http2 import Http2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8


@dataclass
class Heard:
    """Writes down what it is told."""

    heads: list[Mapping[bytes, bytes]] = field(default_factory=list)
    data: bytes = b""
    said: list[tuple[str, int]] = field(default_factory=list)

    def greeted(self) -> None:
        self.said.append(("greeted", 0))

    def called(self, stream: int, metadata: Mapping[bytes, bytes], *, is_all: bool) -> None:
        self.heads.append(metadata)
        self.said.append(("called all" if is_all else "called", stream))

    def sent(self, stream: int, data: bytes, weight: int, *, is_all: bool) -> None:
        self.data += data
        self.said.append(("sent all" if is_all else "sent", stream))

    def given_up(self, stream: int) -> None:
        self.said.append(("given up", stream))

    def may_send(self, stream: int) -> None:
        if stream:
            self.said.append(("may send", stream))

    def heard(self, ping: bytes) -> None:
        self.said.append(("heard", len(ping)))

    def leaves(self, code: int) -> None:
        self.said.append(("leaves", code))


def frame(kind: int, flags: int = 0, stream: int = 0, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def greeted() -> tuple[Http2, Heard]:
    heard = Heard()
    http2 = Http2(heard, most_streams=2, stream_bytes=1000, connection_bytes=100_000)
    http2.receive(PREFACE + frame(SETTINGS))
    http2.taken()
    return http2, heard


def sent_by(http2: Http2) -> list[tuple[str, int]]:
    """Return kinds and streams of the frames that go out, as another implementation reads them."""
    content, found = memoryview(http2.taken()), []
    while content:
        one, length = Frame.parse_frame_header(content[:9])
        one.parse_body(content[9 : 9 + length])
        found.append((type(one).__name__, one.stream_id))
        content = content[9 + length :]
    return found


HEAD = Encoder().encode([(":method", "POST"), (":path", "/a/b")])
OPEN = frame(HEADERS, END_HEADERS, 1, HEAD)


@given(
    heads=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([b":path", b"a", b"b", b"c"]), st.sampled_from([b"", b"1", b"x" * 90]), st.booleans()
            ),
            min_size=1,
            max_size=5,
        ),
        max_size=12,
    ),
    table=st.sampled_from([0, 60, 200, 4096]),
    huffman=st.booleans(),
)
def test_heads_are_what_was_written_however_it_was_compressed(
    heads: list[list[tuple[bytes, bytes, bool]]], table: int, huffman: bool
) -> None:
    http2, heard = greeted()
    encoder = Encoder()
    encoder.header_table_size = table
    for place, head in enumerate(heads):
        block = encoder.encode(head, huffman=huffman)
        number = 2 * place + 1
        http2.receive(frame(HEADERS, END_HEADERS | END_STREAM, number, block))
        http2.reset(number, ErrorCode.CANCEL)

    assert heard.heads == [{name: value for name, value, _ in head} for head in heads]


def test_the_same_bytes_are_another_head_once_the_table_has_changed() -> None:
    http2, heard = greeted()
    encoder = Encoder()
    encoder.header_table_size = 60  # of one entry
    blocks = [encoder.encode([("a", text)]) for text in ("1", "1", "2", "2")]
    assert blocks[1] == blocks[3]

    for place, block in enumerate([*blocks, blocks[3]]):
        http2.receive(frame(HEADERS, END_HEADERS, 2 * place + 1, block))
        http2.reset(2 * place + 1, ErrorCode.CANCEL)

    assert [head[b"a"] for head in heard.heads] == [b"1", b"1", b"2", b"2", b"2"]


def test_what_comes_in_pieces_is_put_together() -> None:
    heard = Heard()
    http2 = Http2(heard, most_streams=2, stream_bytes=1000, connection_bytes=100_000)
    content = PREFACE + frame(SETTINGS) + frame(HEADERS, 0, 1, HEAD[:3]) + frame(CONTINUATION, 0, 1, HEAD[3:5])
    content += frame(CONTINUATION, END_HEADERS, 1, HEAD[5:]) + frame(DATA, PADDED | END_STREAM, 1, b"\2abc\0\0")

    for byte in content:
        http2.receive(bytes((byte,)))

    assert heard.said == [("greeted", 0), ("called", 1), ("sent all", 1)]
    assert (heard.heads, heard.data) == ([{b":method": b"POST", b":path": b"/a/b"}], b"abc")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (frame(DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 2, HEAD), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, HEAD), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\x40"), ErrorCode.COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05" + HEAD[:2]), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, HEAD) + frame(PING, 0, 0, b"x" * 8), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, 0, 1, b"") * 2, ErrorCode.ENHANCE_YOUR_CALM),
        (frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, 0, 1, b"\x82" * 16_000) * 2, ErrorCode.ENHANCE_YOUR_CALM),
        (frame(CONTINUATION, END_HEADERS, 1, HEAD), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frame(HEADERS, END_HEADERS, 1, HEAD), ErrorCode.PROTOCOL_ERROR),
        (OPEN + frame(DATA, END_STREAM, 1) + frame(DATA, 0, 1), ErrorCode.STREAM_CLOSED),
        (OPEN + frame(DATA, 0, 1, b"x" * 1001), ErrorCode.FLOW_CONTROL_ERROR),
        (OPEN + frame(WINDOW, 0, 1, struct.pack(">I", 2**31 - 1)), ErrorCode.FLOW_CONTROL_ERROR),
        (OPEN + frame(WINDOW, 0, 1, struct.pack(">I", 0)), ErrorCode.PROTOCOL_ERROR),
        (frame(WINDOW, 0, 0, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(RST, 0, 1, b"\0" * 4), ErrorCode.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), ErrorCode.FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)), ErrorCode.PROTOCOL_ERROR),
        (frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + HEAD), ErrorCode.PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
        (b"\1\0\0\0\0\0\0\0\1", ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_who_breaks_the_protocol_is_told_how(content: bytes, code: ErrorCode) -> None:
    http2, _ = greeted()

    with pytest.raises(Http2Error) as caught:
        http2.receive(content)

    assert caught.value.code is code


@pytest.mark.parametrize("content", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + frame(PING, 0, 0, b"x" * 8)])
def test_a_connection_begins_with_a_greeting(content: bytes) -> None:
    http2 = Http2(Heard(), most_streams=2, stream_bytes=1000, connection_bytes=100_000)

    with pytest.raises(Http2Error):
        http2.receive(content)


def test_a_head_that_unpacks_to_too_much_is_refused() -> None:
    http2, _ = greeted()
    encoder = Encoder()
    once = encoder.encode([("a", "x" * 4000)], huffman=False)
    again = encoder.encode([("a", "x" * 4000)])

    with pytest.raises(Http2Error) as caught:
        http2.receive(frame(HEADERS, END_HEADERS, 1, once + again * 1000))

    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_more_streams_than_may_be_are_refused_one_by_one() -> None:
    http2, heard = greeted()

    http2.receive(b"".join(frame(HEADERS, END_HEADERS, number, HEAD) for number in (1, 3, 5)))

    assert heard.said[1:] == [("called", 1), ("called", 3)]
    assert sent_by(http2) == [("RstStreamFrame", 5)]
    http2.receive(frame(RST, 0, 1, b"\0" * 4) + frame(HEADERS, END_HEADERS, 7, HEAD))
    assert heard.said[3:] == [("given up", 1), ("called", 7)]


def test_what_was_on_its_way_when_a_stream_ended_is_passed_over() -> None:
    http2, heard = greeted()
    http2.receive(OPEN)
    http2.send_head(1, block_of(((b"grpc-status", b"0"),)), is_all=True)

    http2.receive(frame(DATA, 0, 1, b"late") + frame(WINDOW, 0, 1, b"\0\0\0\1") + frame(RST, 0, 1, b"\0" * 4))
    http2.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD) + frame(PING, 0, 0, b"x" * 8))

    assert heard.said[1:] == [("called", 1)]
    assert sent_by(http2) == [("HeadersFrame", 1), ("RstStreamFrame", 1), ("PingFrame", 0)]
    assert http2.room(1) == 0


def test_windows_follow_what_the_caller_says() -> None:
    http2, _ = greeted()
    http2.receive(OPEN + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 10)))
    assert http2.room(1) == 10

    http2.send_data(1, b"x" * 10)
    http2.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 5)))
    assert http2.room(1) == 0

    http2.receive(frame(WINDOW, 0, 1, struct.pack(">I", 7)))
    assert http2.room(1) == 2


def test_bytes_that_are_acknowledged_may_be_sent_again() -> None:
    http2, heard = greeted()
    http2.receive(OPEN)

    for _ in range(300):
        http2.receive(frame(DATA, 0, 1, b"x" * 1000))
        http2.acknowledge(1, 1000)

    assert len(heard.data) == 300_000
    assert {("WindowUpdateFrame", 0), ("WindowUpdateFrame", 1)} == set(sent_by(http2))


def test_long_headers_are_read_by_others() -> None:
    from hpack import Decoder

    pairs = ((b"a", b"x" * 126), (b"b" * 127, b"y" * 128), (b"c", b"z" * 5000))

    assert tuple(Decoder().decode(block_of(pairs), raw=True)) == pairs
