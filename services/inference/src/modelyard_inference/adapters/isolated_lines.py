"""Connections to a version's process that the event loop reads itself: a batch costs no thread and no turn of one.

One call at a time, bounded in time and size. Whatever is no answer ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

from modelyard_common.frames import BadFrame, whole_frame

__all__ = ["Line", "Told"]

_MOST_BYTES = 256 * 1024**2

Told = Callable[["tuple[int, bytes] | Exception"], None]
"""Takes an answer's status and body; TimeoutError when there was none in time, EOFError when the process has ended."""


class Line(asyncio.Protocol):
    """One connection, of one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._told: Told | None = None
        self._impatient: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether the other side still listens, as far as this loop has heard."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_free(self) -> bool:
        """Whether it can be asked."""
        return self._told is None and self.is_open

    def ask(self, frame: bytes, timeout_s: float, told: Told) -> None:
        """Send a call; ``told`` hears what became of it, once."""
        assert self._transport is not None  # noqa: S101  # it is free
        self._told = told
        self._impatient = self.loop.call_later(timeout_s, self._give_up, TimeoutError())
        self._transport.write(frame)

    def close(self) -> None:
        """End the connection; any thread may say so."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the connection with it
            self.loop.call_soon_threadsafe(self._abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        self._received += data
        try:
            answer = whole_frame(self._received, _MOST_BYTES) if self._told is not None else None
        except BadFrame:
            self._give_up(EOFError())
            return
        if self._told is None:  # nobody has asked
            self._abort()
        elif answer is not None:
            self._received.clear()
            self._tell(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._tell(EOFError())

    def _give_up(self, why: Exception) -> None:
        self._abort()
        self._tell(why)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _tell(self, answer: tuple[int, bytes] | Exception) -> None:
        told, self._told = self._told, None
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None
        if told is not None:
            told(answer)
