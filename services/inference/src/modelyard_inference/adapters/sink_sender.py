"""Sends the spool to a sink of CloudEvents: at least once, beside drift and at its own pace.

A sink that is away or slow holds up nobody: its place in the spool stands still, and when the spool has no room it is
the sink that loses its oldest. What it refuses goes to a file of its own. After a failure one event is tried, and then
all again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import chain, takewhile
from pathlib import Path
from typing import Literal, Protocol

import httpx
from modelyard_common.auth.bearer import token_in
from modelyard_common.deadlines import CallDeadline
from modelyard_common.errors import ModelyardError, Unauthenticated, Unavailable
from modelyard_common.trust import trust_for

from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.cloud_events import CloudEvent, Place, Row, events_of, requests_in
from modelyard_inference.adapters.dead_letters import DeadLetters
from modelyard_inference.adapters.payload_spool import SINK, PayloadSpool
from modelyard_inference.adapters.spool_blocks import BLOCK_ROWS
from modelyard_inference.adapters.spool_sender import SpoolSender

__all__ = ["HttpSink", "Sink", "SinkSender"]

_LONGEST_PAUSE_S = 30.0
_REQUESTS = 64
"""Requests whose events are on their way together: what may be sent twice after a crash, or an end in haste."""
_LOOK_S = 0.25
"""Between two looks at whether there is time to wait for them."""
_MOST_ANSWER_BYTES = 64 * 1024
"""Longer answers cost a new connection, which is less than to read them."""
_PASSING = frozenset({408, 425, 429})
"""Of the 4xx those that say not now, and not never."""
Fate = Literal["taken", "refused"]


class Sink(Protocol):
    """Takes events."""

    def post(self, event: CloudEvent) -> Fate:
        """Hand over one event. Raise Unavailable when it cannot be taken now."""

    def close(self) -> None:
        """Let go of its connections."""


class HttpSink:
    """A sink behind HTTP. Redirects are not followed: payloads go where they were told to go.

    What counts is the status. Of what follows it little is read, for no longer than an event may take: to the end, so
    that the connection can be used again, or not at all.

    Args:
        token_file: with a bearer token; read again for each event, so that it may change.
        timeout_s: how long one event may take.
    """

    def __init__(self, url: str, *, token_file: Path | None, timeout_s: float, connections: int) -> None:
        self._url = url
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=connections),
            follow_redirects=False,
            verify=trust_for(url),
        )
        self._deadline = CallDeadline(self._http)

    def post(self, event: CloudEvent) -> Fate:
        """Hand over one event."""
        until = time.monotonic() + self._timeout_s
        try:
            headers = dict(event.headers) | self._authorization()
            with (
                self._deadline.until(until),
                self._http.stream("POST", self._url, content=event.body, headers=headers) as answer,
            ):
                _pass_over(answer)
        except httpx.HTTPError as exc:
            raise Unavailable(f"the sink does not answer ({type(exc).__name__})") from exc
        status = answer.status_code
        if 200 <= status < 300:
            return "taken"
        if 400 <= status < 500 and status not in _PASSING:
            return "refused"
        wait = answer.headers.get("retry-after", "")
        raise Unavailable(f"the sink answers {status}", retry_after_s=float(wait) if wait.isdecimal() else None)

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            return {"authorization": f"Bearer {token_in(self._token_file, 'sink_token_file')}"}
        except Unauthenticated as exc:
            raise Unavailable(exc.message) from exc


def _pass_over(answer: httpx.Response) -> None:
    """Read the body to its end, if that is near and comes in time."""
    left_bytes = _MOST_ANSWER_BYTES
    with suppress(httpx.HTTPError):
        for piece in answer.iter_raw():
            left_bytes -= len(piece)
            if left_bytes < 0:
                return  # and hang up


class SinkSender(SpoolSender):
    """Empties the sink's part of the spool.

    Args:
        most_rows: rows of the largest request, which is read whole.
        connections: how many events are on their way at once.
        flush_s: how long to send on after the stop.
    """

    def __init__(
        self,
        spool: PayloadSpool,
        sink: Sink,
        dead: DeadLetters,
        place: Place,
        *,
        most_rows: int,
        connections: int,
        flush_s: float,
    ) -> None:
        super().__init__("sink", longest_pause_s=_LONGEST_PAUSE_S, flush_s=flush_s)
        self._spool = spool
        self._sink = sink
        self._dead = dead
        self._place = place
        self._most_rows = most_rows
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="sink")

    def send_once(self) -> bool:
        """Send what is next, or as much of it as there is time for; return whether there was something.

        Raises:
            Unavailable: the sink cannot take it now, or the disk not give it; it stays in the spool.
        """
        batch = self._spool.read(self._most_rows, SINK)
        if batch is None:
            return False
        requests = list(requests_in(batch.payloads))
        if len(requests) > 1 and len(batch.payloads) + BLOCK_ROWS > self._most_rows:
            requests.pop()  # the last one may go on in what was not read
        done = 0
        # One alone after a failure: a sink that is away is asked once a pause.
        for part in _parts(requests, 1 if self._problem else _REQUESTS):
            through = self._post_all(part)
            done += sum(map(len, part[:through]))
            if (place := batch.after_first(done)) is not None:
                self._spool.sent(place, SINK)
            if through < len(part):
                break
            self._back()
        if not requests:
            self._spool.sent(batch.after, SINK)  # blocks that nobody can read
        return True

    def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._sink.close()

    def _post_all(self, part: Sequence[list[Row]]) -> int:
        """Send the events of requests; return how many requests are through: all, where there is time for them."""
        posted = [
            [(event, self._threads.submit(self._sink.post, event)) for event in events_of(rows, self._place)]
            for rows in part
        ]
        left = {one for request in posted for _, one in request}
        while left and not self._out_of_time():
            left = wait(left, _LOOK_S).not_done
        for one in left:
            one.cancel()
        failed = (one.exception() for request in posted for _, one in request if one not in left)
        away = next((error for error in failed if error is not None), None)
        if away is not None:
            raise away
        through = list(takewhile(lambda request: left.isdisjoint(one for _, one in request), posted))
        for event, one in chain.from_iterable(through):
            if one.result() == "taken":
                metrics.SINK_SENT.inc()
            else:
                self._dead.put(event.body, f"the sink refused {event.headers['ce-id']}")
        return len(through)

    def _wait_s(self, error: ModelyardError, pause_s: float) -> float:
        asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
        return min(max(pause_s, asked_s or 0.0), _LONGEST_PAUSE_S)


def _parts(requests: Sequence[list[Row]], size: int) -> Sequence[Sequence[list[Row]]]:
    first, rest = requests[:size], requests[size:]
    return [first, *(rest[start : start + _REQUESTS] for start in range(0, len(rest), _REQUESTS))]
