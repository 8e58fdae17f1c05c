"""HTTP/2 for a server that speaks gRPC: frames, streams and windows (RFC 9113), without input or output of its own.

Header compression is ``hpack``'s. What gRPC does not need is not here: pushes, priorities, upgrades, answers that are
indexed. A caller that breaks the protocol loses its connection; so there are few states, and none to recover from.
"""

from __future__ import annotations

import struct
from typing import Protocol

from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.table import HeaderTable

from modelyard_inference.api.grpc.calls import Metadata
from modelyard_inference.api.grpc.frames import FRAME, NUMBER, ErrorCode, Http2Error, frame, number, unpadded

__all__ = ["Http2", "Listener"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTING = struct.Struct(">HI")
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    range(10)
)
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _WITH_PRIORITY = 0x4, 0x8, 0x20
_TABLE_SIZE, _ENABLE_PUSH, _MOST_STREAMS, _FIRST_WINDOW, _MOST_FRAME, _MOST_HEAD = range(1, 7)
_FRAME_BYTES = 16 * 1024
"""Of one frame, as long as nobody agrees on more."""
_LARGEST_FRAME_BYTES = 2**24 - 1
_LARGEST_WINDOW = 2**31 - 1
_USUAL_WINDOW_BYTES = 65_535
_HEAD_BYTES = 16 * 1024
"""Of the metadata of a call, as grpcio has it."""
_KNOWN_BYTES, _MOST_KNOWN = 512, 16
"""Of heads that are kept, and how many of them; callers with ids or deadlines of their own have none twice."""
_NO_TABLE = b"\x20"
"""Says that nothing of ours is indexed, whatever a caller would keep; due once, before the first head."""


class Listener(Protocol):
    """Is told what a caller does. Streams that have ended for both are known no more."""

    def greeted(self) -> None:
        """The caller speaks HTTP/2, and has said what it takes."""

    def called(self, stream: int, metadata: Metadata, *, is_all: bool) -> None:
        """A stream begins."""

    def sent(self, stream: int, data: bytes, weight: int, *, is_all: bool) -> None:
        """A part of a stream has come; ``weight`` is to be acknowledged."""

    def given_up(self, stream: int) -> None:
        """The caller waits for a stream no more."""

    def may_send(self, stream: int) -> None:
        """The caller takes more, of one stream or (0) of all."""

    def heard(self, ping: bytes) -> None:
        """The caller has read what came before a ping of ours."""

    def leaves(self, code: int) -> None:
        """The caller begins no more streams."""


class _Stream:
    """Attributes: window: bytes that the caller takes; left: that it may send; has_all: it has sent all."""

    __slots__ = ("has_all", "left", "window")

    def __init__(self, window: int, left: int) -> None:
        self.window = window
        self.left = left
        self.has_all = False


class Http2:
    """One connection.

    Args:
        most_streams: at a time.
        stream_bytes: that a caller may send on a stream before they are acknowledged.
        connection_bytes: on all together.
    """

    def __init__(self, listener: Listener, *, most_streams: int, stream_bytes: int, connection_bytes: int) -> None:
        self._listener = listener
        self._most_streams = most_streams
        self._stream_bytes = stream_bytes
        self._decoder = Decoder(_HEAD_BYTES)
        self._known: dict[bytes, Metadata] = {}
        """Heads that came before, by how they were written; as long as the table that they refer to is the same."""
        self._in = b""
        self._expects_preface = self._expects_settings = True
        self._head: bytearray | None = None
        """Of a head in several frames; of which stream, and whether it ends with it."""
        self._head_stream, self._head_is_all = 0, False
        self._streams: dict[int, _Stream] = {}
        self.last = 0
        """The highest stream that has begun."""
        self._window = self._first_window = _USUAL_WINDOW_BYTES
        self._frame_bytes = _FRAME_BYTES
        self._left = self._most_left = connection_bytes
        self._unacknowledged = 0
        settings = ((_MOST_STREAMS, most_streams), (_FIRST_WINDOW, stream_bytes), (_MOST_HEAD, _HEAD_BYTES))
        self._out: list[bytes] = [frame(_SETTINGS, 0, 0, b"".join(_SETTING.pack(*one) for one in settings))]
        if connection_bytes > _USUAL_WINDOW_BYTES:
            self._out.append(frame(_WINDOW_UPDATE, 0, 0, NUMBER.pack(connection_bytes - _USUAL_WINDOW_BYTES)))
        self._prefix = _NO_TABLE

    # What comes.

    def receive(self, data: bytes) -> None:
        """Take what came, and tell what it means. Raise Http2Error."""
        data = self._in + data if self._in else data
        place = 0
        if self._expects_preface:
            if not _PREFACE.startswith(data[: len(_PREFACE)]):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR)
            if len(data) < len(_PREFACE):
                self._in = data
                return
            self._expects_preface, place = False, len(_PREFACE)
        size = len(data)
        while size - place >= 9:
            high, low, kind, flags, stream = FRAME.unpack_from(data, place)
            length = high << 8 | low
            if length > _FRAME_BYTES:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR)
            end = place + 9 + length
            if end > size:
                break
            self._frame(kind, flags, stream & _LARGEST_WINDOW, data[place + 9 : end])
            place = end
        self._in = data[place:]

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if self._expects_settings and (kind != _SETTINGS or flags & _ACK):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        if self._head is not None and (kind != _CONTINUATION or stream != self._head_stream):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        if kind == _DATA:
            self._on_data(flags, stream, body)
        elif kind == _HEADERS:
            self._on_headers(flags, stream, body)
        elif kind == _CONTINUATION:
            self._on_continuation(flags, body)
        elif kind == _WINDOW_UPDATE:
            self._on_window_update(stream, body)
        elif kind == _RST_STREAM:
            self._on_rst_stream(stream, body)
        elif kind in (_SETTINGS, _PING, _GOAWAY):
            if stream:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR)
            _OF_CONNECTION[kind](self, flags, body)
        elif kind == _PUSH_PROMISE:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        # Priorities are advice, and kinds that are not known are to be passed over.

    def _on_data(self, flags: int, number: int, body: bytes) -> None:
        weight, is_all = len(body), bool(flags & _END_STREAM)
        self._left -= weight
        stream = self._known_stream(number)
        if stream is None:
            self.acknowledge(0, weight)  # it was on its way when the stream ended
            return
        if stream.has_all:
            raise Http2Error(ErrorCode.STREAM_CLOSED)
        stream.left -= weight
        if self._left < 0 or stream.left < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR)
        stream.has_all = is_all
        self._listener.sent(number, unpadded(body) if flags & _PADDED else body, weight, is_all=is_all)

    def _on_headers(self, flags: int, number: int, body: bytes) -> None:
        if number % 2 == 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        if flags & _PADDED:
            body = unpadded(body)
        if flags & _WITH_PRIORITY:
            if len(body) < 5:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR)
            body = body[5:]
        if flags & _END_HEADERS:
            self._on_head(number, body, is_all=bool(flags & _END_STREAM))
            return
        self._head, self._head_stream, self._head_is_all = bytearray(body), number, bool(flags & _END_STREAM)

    def _on_continuation(self, flags: int, body: bytes) -> None:
        if self._head is None:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        self._head += body
        if not body or len(self._head) > _HEAD_BYTES:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM)
        if flags & _END_HEADERS:
            whole, self._head = bytes(self._head), None
            self._on_head(self._head_stream, whole, is_all=self._head_is_all)

    def _on_head(self, number: int, block: bytes, *, is_all: bool) -> None:
        metadata = self._decoded(block)
        if number <= self.last:
            # Trailers, which mean nothing to gRPC but that they are the end.
            stream = self._streams.get(number)
            if stream is None:
                return
            if stream.has_all or not is_all:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR)
            stream.has_all = True
            self._listener.sent(number, b"", 0, is_all=True)
            return
        self.last = number
        if len(self._streams) >= self._most_streams:
            self._out.append(frame(_RST_STREAM, 0, number, NUMBER.pack(ErrorCode.REFUSED_STREAM)))
            return
        stream = self._streams[number] = _Stream(self._first_window, self._stream_bytes)
        stream.has_all = is_all
        self._listener.called(number, metadata, is_all=is_all)

    def _decoded(self, block: bytes) -> Metadata:
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        first, entries, size = _first_of(table), len(table.dynamic_entries), table.maxsize
        try:
            found: Metadata = dict(self._decoder.decode(block, raw=True))
        except (HPACKError, IndexError, ValueError) as exc:
            raise Http2Error(ErrorCode.COMPRESSION_ERROR) from exc
        if (len(table.dynamic_entries), table.maxsize) != (entries, size) or _first_of(table) is not first:
            self._known.clear()
        elif len(block) <= _KNOWN_BYTES:
            # It has changed nothing, so that the same bytes are the same head until another does.
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[block] = found
        return found

    def _on_window_update(self, stream_id: int, body: bytes) -> None:
        added = number(body) & _LARGEST_WINDOW
        if added == 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        if stream_id == 0:
            self._window += added
            window = self._window
        elif (stream := self._known_stream(stream_id)) is not None:
            stream.window += added
            window = stream.window
        else:
            return
        if window > _LARGEST_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR)
        self._listener.may_send(stream_id)

    def _on_rst_stream(self, stream_id: int, body: bytes) -> None:
        number(body)
        if self._known_stream(stream_id) is not None:
            del self._streams[stream_id]
            self._listener.given_up(stream_id)

    def _on_settings(self, flags: int, body: bytes) -> None:
        if len(body) % 6 or (flags & _ACK and body):
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR)
        if flags & _ACK:
            return
        for name, value in _SETTING.iter_unpack(body):
            if name == _FIRST_WINDOW:
                if value > _LARGEST_WINDOW:
                    raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR)
                for stream in self._streams.values():
                    stream.window += value - self._first_window
                self._first_window = value
            elif name == _MOST_FRAME:
                if not _FRAME_BYTES <= value <= _LARGEST_FRAME_BYTES:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR)
                self._frame_bytes = value
            elif name == _ENABLE_PUSH and value > 1:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        self._out.append(frame(_SETTINGS, _ACK, 0, b""))
        is_first, self._expects_settings = self._expects_settings, False
        if is_first:
            self._listener.greeted()
        self._listener.may_send(0)

    def _on_ping(self, flags: int, body: bytes) -> None:
        if len(body) != 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR)
        if flags & _ACK:
            self._listener.heard(body)
        else:
            self._out.append(frame(_PING, _ACK, 0, body))

    def _on_goaway(self, flags: int, body: bytes) -> None:
        del flags
        if len(body) < 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR)
        self._listener.leaves(NUMBER.unpack_from(body, 4)[0])

    def _known_stream(self, number: int) -> _Stream | None:
        """Return a stream; None for one that has ended. Raise Http2Error for one that has never begun."""
        stream = self._streams.get(number)
        if stream is None and (number == 0 or number > self.last or number % 2 == 0):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR)
        return stream

    # What goes.

    def room(self, number: int) -> int:
        """Return how many bytes of a stream the caller takes now, in one frame."""
        stream = self._streams.get(number)
        return 0 if stream is None else max(0, min(stream.window, self._window, self._frame_bytes))

    def send_head(self, number: int, block: bytes, *, is_all: bool = False) -> None:
        """Send headers or trailers, as ``block_of`` writes them; nothing to a stream that has ended."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        self._out.append(frame(_HEADERS, _END_HEADERS | (_END_STREAM if is_all else 0), number, block))
        if is_all:
            del self._streams[number]
            if not stream.has_all:
                # All is said, whatever else would come.
                self._out.append(frame(_RST_STREAM, 0, number, NUMBER.pack(ErrorCode.NO_ERROR)))

    def send_data(self, number: int, content: bytes) -> None:
        """Send a part of an answer, no longer than there is room for."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.window -= len(content)
        self._window -= len(content)
        self._out.append(frame(_DATA, 0, number, content))

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream without a word."""
        if self._streams.pop(number, None) is not None:
            self._out.append(frame(_RST_STREAM, 0, number, NUMBER.pack(code)))

    def acknowledge(self, number: int, weight: int) -> None:
        """Let the caller send more: on a stream, where it is still open, and on the connection in any case."""
        if weight == 0:
            return
        stream = self._streams.get(number)
        if stream is not None and not stream.has_all:
            stream.left += weight
            self._out.append(frame(_WINDOW_UPDATE, 0, number, NUMBER.pack(weight)))
        self._unacknowledged += weight
        if self._unacknowledged >= self._most_left // 4:  # most calls are over before that
            self._left += self._unacknowledged
            self._out.append(frame(_WINDOW_UPDATE, 0, 0, NUMBER.pack(self._unacknowledged)))
            self._unacknowledged = 0

    def ping(self, content: bytes) -> None:
        """Ask the caller to answer."""
        self._out.append(frame(_PING, 0, 0, content))

    def go_away(self, last: int, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Say which stream is the last that is taken."""
        self._out.append(frame(_GOAWAY, 0, 0, NUMBER.pack(last) + NUMBER.pack(code)))

    def taken(self) -> bytes:
        """Return what is to be sent."""
        content = b"".join(self._out)
        self._out.clear()
        return content


def _first_of(table: HeaderTable) -> object:
    """Return the newest entry: whoever keeps it knows by it whether another has come."""
    return table.dynamic_entries[0] if table.dynamic_entries else None


_OF_CONNECTION = {_SETTINGS: Http2._on_settings, _PING: Http2._on_ping, _GOAWAY: Http2._on_goaway}
