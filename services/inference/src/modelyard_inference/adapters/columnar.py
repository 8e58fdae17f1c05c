"""Parquet and Arrow bodies, by a process that may die of them: started when first needed, replaced when it is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, cast

import msgspec
from modelyard_common.errors import Invalid, ModelyardError, TooLarge, Unavailable
from modelyard_common.frames import BadFrame, packed, read_frame
from modelyard_common.logs import get_logger

from modelyard_inference.adapters import columnar_frames as frames
from modelyard_inference.domain.ports import Lane, TableFormat
from modelyard_inference.domain.requests import Late, Rows

__all__ = ["ColumnarProcess"]

_log = get_logger(__name__)
_READ: Mapping[TableFormat, int] = {
    "parquet": frames.READ_PARQUET,
    "arrow_stream": frames.READ_STREAM,
    "arrow_file": frames.READ_FILE,
}
_MOST_ANSWER_BYTES = 512 * 1024**2
"""More than any table that is taken becomes; a process that says more has lost its way."""
_WRITE_S = 10.0
_ATTEMPTS = 2
"""The first process may have died of something else than the body, such as a machine that was out of memory."""


class ColumnarProcess:
    """Reads tables and writes them, one at a time, in the process beside.

    Args:
        lane: whose threads wait for the process.
        most_rows: rows of one table.
        most_bytes: bytes of one table, once unpacked.
    """

    def __init__(self, lane: Lane, *, most_rows: int, most_bytes: int) -> None:
        self._lane = lane
        self._most = (most_rows, most_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    async def read(self, body: bytes, form: TableFormat, timeout_s: float) -> Rows:
        """Return a table as rows.

        Raises:
            Invalid: it cannot be read, or holds what nothing is predicted from.
            TooLarge: it has too many rows, or too much once unpacked.
            Late: it was not read in time.
        """
        content = await self._lane.run(lambda: self._asked(_READ[form], body, timeout_s), timeout_s)
        count, columns = msgspec.msgpack.decode(content, type=tuple[int, dict[str, list[Any]]])
        return Rows(count=count, named=columns)

    async def write(self, columns: Mapping[str, Sequence[Any]]) -> bytes:
        """Return columns as an Arrow stream."""
        body = msgspec.msgpack.encode(columns)
        return await self._lane.run(lambda: self._asked(frames.WRITE_STREAM, body, _WRITE_S), _WRITE_S)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            cast(BinaryIO, self._process.stdin).close()
            cast(BinaryIO, self._process.stdout).close()

    def _asked(self, what: int, body: bytes, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        with self._turn:
            for _ in range(_ATTEMPTS):
                with suppress(EOFError):
                    status, content = self._exchange_within(what, body, deadline)
                    break
            else:
                raise Invalid.at("body", "cannot be read, or is too large once unpacked")
        if status == frames.OK:
            return content
        raise _error(status, content.decode())

    def _exchange_within(self, what: int, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Return what the process answers. Raise Late, or EOFError when it died of something else than the deadline."""
        process = self._running()
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), end)
        watchdog.start()
        try:
            return self._exchange(process, what, body)
        except (OSError, EOFError) as exc:
            code = process.wait()
            _log.warning("columnar.process_ended", code=code, late=late.is_set())
            if late.is_set():
                raise Late("the body was not read within the deadline") from exc
            raise EOFError from exc
        finally:
            watchdog.cancel()

    def _exchange(self, process: subprocess.Popen[bytes], what: int, body: bytes) -> tuple[int, bytes]:
        source, sink = cast(BinaryIO, process.stdout), cast(BinaryIO, process.stdin)
        sink.write(packed(what, body))
        sink.flush()
        try:
            return read_frame(source.read, _MOST_ANSWER_BYTES)
        except BadFrame as exc:
            process.kill()
            raise EOFError from exc

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            if self._process is not None:
                self.close()
            command = [sys.executable, "-P", "-m", frames.WORKER, *map(str, self._most)]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            except OSError as exc:
                raise Unavailable("no process can be started to read it; try again", retry_after_s=1) from exc
        return self._process


def _error(status: int, message: str) -> ModelyardError:
    return TooLarge(message) if status == frames.TOO_LARGE else Invalid.at("body", message)
