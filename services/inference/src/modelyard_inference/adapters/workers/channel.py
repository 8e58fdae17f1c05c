"""Questions and answers between two processes of one server, over a pair of sockets; both sides may ask.

The end of the channel is news of its own: the other process is gone, however it went.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import Any

import msgspec
from modelyard_common import errors
from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_common.logs import get_logger

__all__ = ["ASK_S", "Channel", "Handlers"]

Handlers = Mapping[str, Callable[..., Any]]

ASK_S = 2.0
"""How long an answer may take that needs no work; longer, and that process is busy with something else."""
_SEND_S = 5
_MOST_AT_ONCE = 8
_LONG = frozenset({"load", "unload", "each"})
"""What may take minutes. It has threads of its own: a heart beat that waited for it would look like none."""
_LENGTH = struct.Struct(">I")
_log = get_logger(__name__)


class _Message(msgspec.Struct, array_like=True):
    """A question (``name`` is set) or an answer; ``number`` 0 wants no answer."""

    number: int
    name: str = ""
    arguments: tuple[Any, ...] = ()
    answer: Any = None
    error: tuple[str, str] | None = None


class Channel:
    """One end.

    Args:
        handlers: name to what answers; each is called in a thread.
        ended: called once when the other side is gone.
    """

    def __init__(self, end: socket.socket, handlers: Handlers, ended: Callable[[], None]) -> None:
        self._end = end
        self._handlers = handlers
        self._ended = ended
        # A side that takes nothing in must not hold up whoever tells it something.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Any]] = {}
        self._gone = threading.Event()
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="channel")
        self._long = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="channel-long")
        self._reader = threading.Thread(target=self._read, name="channel", daemon=True)

    def start(self) -> None:
        """Begin to listen to the other side."""
        self._reader.start()

    def ask(self, name: str, *arguments: Any, timeout_s: float = ASK_S) -> Any:
        """Return the other side's answer.

        Raises:
            Unavailable: the other side is gone, or does not answer in time.
            ModelyardError: what it raised.
        """
        number, answer = next(self._numbers), Future[Any]()
        self._asked[number] = answer
        try:
            if self._gone.is_set():
                raise Unavailable("the other process of this server is gone")
            self._send(_Message(number, name, arguments))
            return answer.result(timeout_s)
        except Late as exc:
            raise Unavailable("another process of this server does not answer") from exc
        finally:
            self._asked.pop(number, None)

    def tell(self, name: str, *arguments: Any) -> None:
        """Tell the other side something. One that is gone is not told."""
        try:
            self._send(_Message(0, name, arguments))
        except Unavailable:
            return

    def close(self) -> None:
        """Hang up; nobody is called for it."""
        self._gone.set()
        try:
            self._end.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _send(self, message: _Message) -> None:
        content = msgspec.msgpack.encode(message)
        try:
            with self._sending:
                self._end.sendall(_LENGTH.pack(len(content)) + content)
        except OSError as exc:
            # A message that was sent in part has spoiled the stream.
            self.close()
            raise Unavailable("the other process of this server is gone") from exc

    def _read(self) -> None:
        decode = msgspec.msgpack.Decoder(_Message).decode
        with self._end.makefile("rb") as stream:
            try:
                while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
                    self._heed(decode(stream.read(_LENGTH.unpack(head)[0])))
            except (OSError, ValueError, msgspec.DecodeError) as exc:
                _log.warning("channel.broken", kind=type(exc).__name__)
        told = self._gone.is_set()
        self._gone.set()
        for answer in list(self._asked.values()):
            if not answer.done():
                answer.set_exception(Unavailable("the other process of this server is gone"))
        for threads in (self._threads, self._long):
            threads.shutdown(wait=False, cancel_futures=True)
        with self._sending:
            self._end.close()
        if not told:
            self._ended()

    def _heed(self, message: _Message) -> None:
        if message.name:
            (self._long if message.name in _LONG else self._threads).submit(self._answer, message)
            return
        answer = self._asked.get(message.number)
        if answer is None or answer.done():
            return
        if message.error is None:
            answer.set_result(message.answer)
        else:
            answer.set_exception(_error(*message.error))

    def _answer(self, message: _Message) -> None:
        reply = _Message(message.number)
        try:
            reply.answer = self._handlers[message.name](*message.arguments)
        except ModelyardError as exc:
            reply.error = (type(exc).__name__, exc.message)
        except Exception as exc:
            _log.error("channel.failed", error=exc, asked=message.name)
            reply.error = ("ModelyardError", "another process of this server failed")
        if message.number:
            try:
                self._send(reply)
            except Unavailable:
                return


def _error(kind: str, message: str) -> ModelyardError:
    found = getattr(errors, kind, ModelyardError)
    return found(message) if isinstance(found, type) and issubclass(found, ModelyardError) else ModelyardError(message)
