"""An open loop of HTTP requests: each is sent when it is due, whether or not those before it were answered.

So a server that stalls meets what would pile up in front of it, and every request has an outcome that a test can count.
The caller is a plain one behind a plain load balancer: it asks the targets that were ready when last looked at, in
turn, and never asks twice. What fails, failed.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

__all__ = ["Asked", "Load", "Outcome", "open_loop"]

_LOOK_S = 0.1
"""Between two looks at whether a target is ready: shorter than any drain window that is meant for it."""
_MOST_OPEN = 1_000
"""Requests without an answer at a time; what would be sent beyond has failed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to send."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        due_s: monotonic seconds when it was sent.
        took_s: until the answer was there whole.
        target: who was asked.
        status: of the answer; 0 when there was none.
        failure: empty for a 200, else what came instead.
    """

    asked: Asked
    due_s: float
    took_s: float
    target: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    failure: str = ""


class Load:
    """A loop that runs, and what it has seen so far."""

    def __init__(
        self, targets: Sequence[str], asked: Sequence[Asked], *, rate: float, ready: str, patience_s: float
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._targets = targets
        self._asked = itertools.cycle(asked)
        self._rate = rate
        self._ready_path = ready
        self._patience_s = patience_s
        self._rotation: frozenset[str] = frozenset()
        self._turn = 0
        self._ended = threading.Event()

    @property
    def failures(self) -> list[str]:
        """What went wrong, one line a request."""
        return [
            f"{one.due_s:.2f} + {one.took_s:.2f} s {one.target}{one.asked.path}: {one.failure}"
            for one in list(self.outcomes)
            if one.failure
        ]

    @property
    def answered(self) -> int:
        """Requests that got a 200."""
        return sum(1 for one in list(self.outcomes) if not one.failure)

    @property
    def rotation(self) -> frozenset[str]:
        """The targets that get requests now."""
        return self._rotation

    def wait_for(self, answers: int, timeout_s: float = 60.0) -> None:
        """Return when there are so many more answers than now. Raise TimeoutError, with what failed meanwhile."""
        wanted, deadline = self.answered + answers, time.monotonic() + timeout_s
        while self.answered < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.answered} of {wanted} answers; failed: {self.failures[-3:]}")
            time.sleep(0.01)

    def end(self) -> None:
        """Send no more; what is under way is waited for."""
        self._ended.set()

    async def run(self) -> None:
        """Send until the end, and wait for the last answer."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with httpx.AsyncClient(trust_env=False, timeout=self._patience_s, limits=limits) as http:
            await self._look(http)
            looks = asyncio.ensure_future(self._look_on(http))
            tasks: set[asyncio.Task[None]] = set()
            due = time.monotonic()
            while not self._ended.is_set():
                await asyncio.sleep(due - time.monotonic())
                task = asyncio.ensure_future(self._send(http, next(self._asked), due, crowded=len(tasks) >= _MOST_OPEN))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += 1 / self._rate
            # Not cancelled: a probe that is given up while it connects may leave its socket behind.
            await asyncio.gather(*tasks, looks)

    async def _look_on(self, http: httpx.AsyncClient) -> None:
        while not self._ended.is_set():
            await asyncio.sleep(_LOOK_S)
            await self._look(http)

    async def _look(self, http: httpx.AsyncClient) -> None:
        found = await asyncio.gather(*(self._is_ready(http, target) for target in self._targets))
        self._rotation = frozenset(itertools.compress(self._targets, found))

    async def _is_ready(self, http: httpx.AsyncClient, target: str) -> bool:
        try:
            # A probe has a connection of its own, as a kubelet's has.
            answer = await http.get(target + self._ready_path, headers={"connection": "close"}, timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    async def _send(self, http: httpx.AsyncClient, asked: Asked, due: float, *, crowded: bool) -> None:
        target = self._next_target()
        if target is None or crowded:
            why = "too many requests are without an answer" if crowded else "no target is ready"
            self.outcomes.append(Outcome(asked, due, 0.0, "", failure=why))
            return
        try:
            answer = await http.post(target + asked.path, content=asked.body, headers=dict(asked.headers))
        except httpx.HTTPError as exc:
            self.outcomes.append(Outcome(asked, due, time.monotonic() - due, target, failure=repr(exc)))
            return
        failure = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:300]}"
        took_s = time.monotonic() - due
        self.outcomes.append(
            Outcome(asked, due, took_s, target, answer.status_code, answer.headers, answer.content, failure)
        )

    def _next_target(self) -> str | None:
        ready = [target for target in self._targets if target in self._rotation]
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None


@contextmanager
def open_loop(
    targets: Sequence[str],
    asked: Sequence[Asked],
    *,
    rate: float,
    ready: str = "/health/ready",
    patience_s: float = 30.0,
) -> Iterator[Load]:
    """Send requests for as long as the block takes; inside it they flow already, and all are answered after it.

    Args:
        targets: base URLs; at the beginning all of them are ready.
        asked: sent in turn.
        rate: requests a second.
        ready: the path that answers 200 while a target may be asked.
        patience_s: how long an answer may take before it counts as none.
    """
    load = Load(targets, asked, rate=rate, ready=ready, patience_s=patience_s)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()), name="open-loop")
    thread.start()
    try:
        load.wait_for(1)
        yield load
    finally:
        load.end()
        thread.join()
