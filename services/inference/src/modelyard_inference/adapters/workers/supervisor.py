"""One server of several processes: begins the workers, replaces those that end, and ends them all when told to.

Each worker listens on the same ports (SO_REUSEPORT): the kernel deals connections out evenly, and one that is dead has
no share. A worker knows that its supervisor is gone by the end of their channel, and ends at once: none is orphaned.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import FrameType

from modelyard_common.logs import get_logger
from modelyard_common.shared_metrics import make_area

from modelyard_inference.adapters.workers.channel import Channel
from modelyard_inference.adapters.workers.pod import Pod, Seat
from modelyard_inference.adapters.workers.pod_metrics import RESTARTS
from modelyard_inference.adapters.workers.post import Post

__all__ = ["Supervisor"]

_log = get_logger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_BEAT_S = 2.0
_LONG_LIFE_S = 60.0
"""One that has lived as long did not end because of how it began."""


@dataclass(slots=True)
class _Place:
    """A worker's place, over all that have held it."""

    slot: int
    process: subprocess.Popen[bytes] | None = None
    seat: Seat | None = None
    began: float = 0.0
    failures: int = 0
    due: float | None = 0.0
    """Monotonic seconds at which the next one begins; None while one runs."""

    def pause_s(self, lived_s: float) -> float:
        self.failures = 0 if lived_s >= _LONG_LIFE_S else self.failures + 1
        return min(_FIRST_PAUSE_S * 2.0 ** (self.failures - 1), _LONGEST_PAUSE_S) if self.failures else 0.0


@dataclass
class Supervisor:
    """Runs workers.

    Attributes:
        module: what a worker runs.
        end_s: how long workers may take to end after SIGTERM; then they are killed.
        patience_s: how long a worker's event loop may stand still; then it is killed, and begun again.
    """

    pod: Pod
    size: int
    port: int
    grpc_port: int
    module: str
    end_s: float
    patience_s: float
    _events: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue, init=False)
    _places: list[_Place] = field(default_factory=list, init=False)
    _until: float | None = field(default=None, init=False)
    """Monotonic seconds at which what still runs is killed; None while nobody has asked for an end."""
    _code: int = field(default=0, init=False)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and return the exit code: 0 when every worker has drained."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._told_to_end) for number in numbers}
        try:
            self._places = [_Place(slot) for slot in range(self.size)]
            while self._until is None or any(place.process is not None for place in self._places):
                self._begin_due()
                self._wait()
        finally:
            for place in self._places:
                if place.process is not None:
                    place.process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._code

    def _told_to_end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._events.put(self._end)

    def _end(self) -> None:
        """Ask all workers to drain; a second time: to end without."""
        if self._until is None:
            self._until = time.monotonic() + self.end_s
            _log.info("workers.draining", seconds=self.end_s)
        for place in self._places:
            if place.process is not None:
                place.process.send_signal(signal.SIGTERM)

    def _wait(self) -> None:
        due = [place.due for place in self._places if place.due is not None and self._until is None]
        at = min([*due, *([self._until] if self._until is not None else [])], default=None)
        try:
            event = self._events.get(timeout=None if at is None else max(0.0, at - time.monotonic()))
        except queue.Empty:
            if self._until is not None:
                self._kill()
            return
        event()

    def _kill(self) -> None:
        for place in self._places:
            if place.process is not None:
                _log.error("worker.killed", slot=place.slot, reason=f"it did not end within {self.end_s:.0f} s")
                place.process.kill()
        self._until = time.monotonic() + self.end_s

    def _begin_due(self) -> None:
        if self._until is not None:
            return
        for place in self._places:
            if place.due is not None and place.due <= time.monotonic() and self._until is None:
                self._begin(place)

    def _begin(self, place: _Place) -> None:
        try:
            process, seat = self._forked(place)
        except OSError as exc:  # no process, memory or descriptor to be had, which may pass
            _log.error("worker.not_forked", slot=place.slot, reason=exc.strerror)
            self._failed(place, was_up=False, lived_s=0.0, code=None)
            return
        place.process, place.seat, place.began, place.due = process, seat, time.monotonic(), None
        try:
            self.pod.seat(seat)
            for watch in (self._feel, self._watch):
                threading.Thread(
                    target=watch, args=(place, process, seat), name=f"worker-{place.slot}", daemon=True
                ).start()
        except RuntimeError:  # no thread to be had, and the last of them would have told how this one ends
            process.kill()
            process.wait()
            self._ended(place)
            return
        _log.info("worker.begun", slot=place.slot, pid=process.pid)

    def _forked(self, place: _Place) -> tuple[subprocess.Popen[bytes], Seat]:
        """Return a new process and its seat, which nobody has taken in yet. Raise OSError, and leave nothing open."""
        with ExitStack() as undone:
            ours, theirs = socket.socketpair()
            undone.callback(ours.close)
            with theirs:
                area = make_area()
                undone.callback(os.close, area)
                post = Post(
                    slot=place.slot,
                    of=self.size,
                    channel=theirs.fileno(),
                    port=self.port,
                    grpc_port=self.grpc_port,
                    joins=self.pod.is_complete,
                    unloaded=self.pod.unloaded,
                )
                # A group of its own: Ctrl-C is for the supervisor, which ends its workers itself.
                process = subprocess.Popen(
                    [sys.executable, "-m", "modelyard_common.shared_run", str(area), self.module, post.written()],
                    pass_fds=(theirs.fileno(), area),
                    start_new_session=True,
                )
            undone.pop_all()
        return process, Seat(place.slot, Channel(ours, self.pod.handlers(place.slot), lambda: None), area)

    def _watch(self, place: _Place, process: subprocess.Popen[bytes], seat: Seat) -> None:
        del seat
        process.wait()
        self._events.put(lambda: self._ended(place))

    def _feel(self, place: _Place, process: subprocess.Popen[bytes], seat: Seat) -> None:
        """Kill a worker that stands still or lost a port: probes would not find it, since the others answer them."""
        while process.returncode is None:
            if not self.pod.beats(seat, self.patience_s) and process.returncode is None:
                _log.error("worker.stands_still", slot=place.slot, seconds=self.patience_s)
                process.kill()
                return
            if seat.has_drained:
                self._see_out(place, process)
                return
            time.sleep(min(_BEAT_S, self.patience_s))

    def _see_out(self, place: _Place, process: subprocess.Popen[bytes]) -> None:
        """Let a worker that has drained end by itself: it may have a last word to send."""
        try:
            process.wait(self.end_s)
        except subprocess.TimeoutExpired:
            _log.error("worker.killed", slot=place.slot, reason=f"it did not end within {self.end_s:.0f} s")
            process.kill()

    def _ended(self, place: _Place) -> None:
        process, seat = place.process, place.seat
        assert process is not None  # noqa: S101  # one that has ended ran
        assert seat is not None  # noqa: S101
        was_up = seat.is_up
        place.process = place.seat = None
        self.pod.vacate(seat)
        if self._until is not None:
            untouched = not was_up and process.returncode == -signal.SIGTERM  # it had not begun to listen to signals
            self._code = self._code or int(process.returncode != 0 and not untouched)
            return
        RESTARTS.inc()
        self._failed(place, was_up=was_up, lived_s=time.monotonic() - place.began, code=process.returncode)

    def _failed(self, place: _Place, *, was_up: bool, lived_s: float, code: int | None) -> None:
        """Have another one begin after a while; the whole server ends where its first ones do not begin."""
        if not was_up and not self.pod.is_complete:
            # A server of one process would have ended so: what keeps it from starting is for whoever starts it.
            _log.error("worker.not_started", slot=place.slot, code=code)
            self._code = 1
            place.due = None
            self._end()
            return
        pause_s = place.pause_s(lived_s)
        _log.error("worker.ended", slot=place.slot, code=code, again_in_s=pause_s)
        place.due = time.monotonic() + pause_s
