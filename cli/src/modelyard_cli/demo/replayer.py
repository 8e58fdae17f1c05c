"""Replays a stream: each row to the inference API when its time has come, each label to drift when it is known.

Rows are asked one by one over a few keep-alive connections, without retries: what fails, failed. Before a block of
rows the labels that are due by its first row are sent, so that none comes early. The stream is held after each block,
so that whatever the platform decides, it decides knowing the same labels every time.
"""

from __future__ import annotations

import http.client
import itertools
import json
import select
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from modelyard_client import DriftClient
from modelyard_client.inference import tensors
from modelyard_common.errors import ModelyardError
from modelyard_contracts.drift_v1 import Label, LabelBatch

from modelyard_cli.demo.stream import Stream

__all__ = ["Answer", "Replayer"]

_BLOCK_ROWS = 25
_CONNECTIONS = 4
_TIMEOUT_S = 30.0
_STALE_S = 5.0
_LABEL_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a row got.

    Attributes:
        asked_s: monotonic seconds when the request was sent.
    """

    prediction_id: str = ""
    value: Any = None
    version: str = ""
    asked_s: float = 0.0
    took_ms: float = 0.0
    failure: str = ""


@dataclass(slots=True)
class Replayer:
    """Sends a stream.

    Attributes:
        inference_urls: of each replica; the connections are spread over them.
        hold: returns when the stream may go on; told how many rows were answered so far.
        keep_alive: called while labels cannot be delivered; the supervisor looks after its processes in it.
        seen: told of each block: (rows sent so far).
        token: what the platform knows the application by, where it asks for one.
    """

    stream: Stream
    inference_urls: Sequence[str]
    drift: DriftClient
    hold: Callable[[int], None]
    keep_alive: Callable[[], None]
    seen: Callable[[int], None]
    answers: list[Answer] = field(default_factory=list)
    labels_sent: int = 0
    first_correct: float | None = None
    """Monotonic seconds of the first answer that was true."""
    token: str | None = field(default=None, repr=False)
    _labelled: int = 0
    _failed: int = 0

    def run(self) -> None:
        """Replay all rows."""
        urls = itertools.islice(itertools.cycle(self.inference_urls), _CONNECTIONS)
        connections = [_Connection(url, self.stream.name, self.token) for url in urls]
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            try:
                for start in range(0, len(self.stream), _BLOCK_ROWS):
                    self._send_labels(start)
                    block = range(start, min(start + _BLOCK_ROWS, len(self.stream)))
                    parts = [block[place::_CONNECTIONS] for place in range(_CONNECTIONS)]
                    found: dict[int, Answer] = {}
                    for part in pool.map(self._ask, connections, parts):
                        found |= part
                    self.answers += [found[row] for row in block]
                    self._failed += sum(1 for answer in found.values() if answer.failure)
                    self.hold(self.answered)
                    self.seen(len(self.answers))
            finally:
                for connection in connections:
                    connection.close()

    @property
    def answered(self) -> int:
        """Rows that got an answer."""
        return len(self.answers) - self._failed

    def _ask(self, connection: _Connection, rows: range) -> dict[int, Answer]:
        found = {}
        for row in rows:
            body = {
                "inputs": tensors([self.stream.features[row]]),
                "parameters": {"event_time": self.stream.times[row].isoformat(), "routing_key": str(row)},
            }
            answer = connection.ask(body)
            if self.first_correct is None and not answer.failure and answer.value == self.stream.truths[row]:
                self.first_correct = time.monotonic()
            found[row] = answer
        return found

    def _send_labels(self, row: int) -> None:
        """Send the labels that are known when a row comes."""
        now = self.stream.times[row]
        due = self._labelled
        while due < len(self.answers) and self.stream.times[due] + self.stream.delay <= now:
            due += 1
        labels = tuple(
            Label(prediction_id=f"{self.answers[place].prediction_id}/0", value=self.stream.truths[place])
            for place in range(self._labelled, due)
            if not self.answers[place].failure
        )
        if labels:
            self._deliver(LabelBatch(labels=labels))
            self.labels_sent += len(labels)
        self._labelled = due

    def _deliver(self, batch: LabelBatch) -> None:
        """Deliver labels at least once: drift takes the same label again as a no-op."""
        deadline = time.monotonic() + _LABEL_PATIENCE_S
        while True:
            try:
                self.drift.send_labels(self.stream.name, batch)
            except ModelyardError:
                if time.monotonic() > deadline:
                    raise
                self.keep_alive()
                time.sleep(0.2)
            else:
                return


class _Connection:
    """One keep-alive connection; a new one is opened after a failure, a long pause, or when the other side hung up."""

    def __init__(self, base_url: str, model: str, token: str | None) -> None:
        parts = urlsplit(base_url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = f"/v2/models/{model}/infer"
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    def ask(self, body: dict[str, Any]) -> Answer:
        """Return the answer to one request, or what went wrong with it."""
        text = json.dumps(body)
        started = time.monotonic()
        if self._connection is None or started - self._used > _STALE_S or self._hung_up():
            self.close()
            self._connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_S)
        try:
            self._connection.request("POST", self._path, text, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            return Answer(asked_s=started, failure=type(exc).__name__)
        self._used = time.monotonic()
        took_ms = (self._used - started) * 1000
        if response.status != 200:
            failure = f"{response.status}: {content[:200].decode(errors='replace')}"
            return Answer(asked_s=started, took_ms=took_ms, failure=failure)
        outputs = {output["name"]: output["data"] for output in json.loads(content)["outputs"]}
        return Answer(
            prediction_id=response.getheader("modelyard-prediction-id", ""),
            value=outputs["predict"][0],
            version=response.getheader("modelyard-version", ""),
            asked_s=started,
            took_ms=took_ms,
        )

    def _hung_up(self) -> bool:
        """Return whether an idle connection has something to read: its end. Every client's pool looks before use."""
        socket = self._connection.sock if self._connection is not None else None
        return socket is None or bool(select.select([socket], [], [], 0)[0])

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
