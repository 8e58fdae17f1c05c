"""Prediction events in blocks: what inference keeps of one answer, and sends to drift as it is.

A block is a MessagePack array, the fields of ``PredictionBlock`` in their order. What all rows of an answer share is in
it once, and their values lie end to end, so that neither a row nor its names are written down, read and written again
on their way. A body of ``POST /v1/events`` of this media type is ``frames``: the first holds the name of who sends, as
UTF-8, and each that follows a block. So it is the name before what lies in the sender's log.

Times are MessagePack timestamps (extension -1). Law: a block means its ``events()``, each with the fields of a
``PredictionEvent``; whoever takes events as JSON and as blocks has the same of both.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from modelyard_contracts.events_v1 import FeatureValue
from modelyard_contracts.frames import framed

__all__ = ["BLOCKS_MEDIA_TYPE", "PredictionBlock", "name_frame"]

BLOCKS_MEDIA_TYPE = "application/vnd.modelyard.prediction-blocks.v3"

_FLOATS = {4: "f", 8: "d"}
"""Codes of ``array`` by the bytes of a number."""


class PredictionBlock(NamedTuple):
    """The rows of one answer, or some of them.

    Only ever longer. What is new has a default, so that a reader takes blocks of an older writer; and it never changes
    what the fields before it mean, so that drift passes over what a newer writer added. What does change
    it has another media type.

    Attributes:
        id: of the answer; row i of the block is ``id/(first_row + i)``.
        rows: how many, at least one.
        event_times: one for all rows, or one a row.
        latency_ms: from arrival to answer.
        names: of the features, each once; empty where they are not sampled.
        values: of each row its features in the order of the names, rows x names of them end to end; or the same as
            little-endian float32 or float64, whichever of both has as many bytes, where NaN is a missing value.
        predictions: one a row; empty where there are none.
        scores: one a row; None where there are none.
        error: of all rows, where the version failed.
        traceparent: of the trace that is recorded, if one is. Not a field of the events.
        first_row: which row of the answer the first one is.
        queue_ms: the part of ``latency_ms`` before the model ran. Not a field of the events.
    """

    id: str
    rows: int
    model: str
    revision: int
    champion: str
    version: str
    role: Literal["champion", "candidate", "shadow"]
    event_times: Sequence[datetime]
    arrival: datetime
    latency_ms: float
    routing_key: str
    sampled: bool
    names: Sequence[str]
    values: Sequence[FeatureValue] | bytes
    predictions: Sequence[FeatureValue]
    scores: Sequence[float | None] | None
    error: str | None = None
    traceparent: str | None = None
    first_row: int = 0
    queue_ms: float = 0.0

    def events(self) -> Iterator[dict[str, Any]]:
        """Return its rows, each with the fields of a ``PredictionEvent``.

        Raises:
            ValueError: its fields do not fit together, see ``misfits``.
        """
        width, once = len(self.names), len(self.event_times) == 1
        values = self.plain_values()
        for row in range(self.rows):
            yield {
                "id": f"{self.id}/{self.first_row + row}",
                "model": self.model,
                "revision": self.revision,
                "champion": self.champion,
                "version": self.version,
                "role": self.role,
                "routing_key": self.routing_key,
                "event_time": self.event_times[0 if once else row],
                "arrival": self.arrival,
                "features": dict(zip(self.names, values[row * width : (row + 1) * width], strict=True)),
                "sampled": self.sampled,
                "prediction": self.predictions[row] if self.predictions else None,
                "score": self.scores[row] if self.scores is not None else None,
                "latency_ms": self.latency_ms,
                "error": self.error,
            }

    def parts(self, most: int) -> Iterable[PredictionBlock]:
        """Return the same rows in blocks of at most so many. Law: together they have the same events."""
        return (self,) if self.rows <= most else self._split(most)

    def _split(self, most: int) -> Iterator[PredictionBlock]:
        width, once = len(self.names), len(self.event_times) == 1
        if isinstance(self.values, bytes | memoryview):
            width = len(self.values) // self.rows
        for start in range(0, self.rows, most):
            end = min(start + most, self.rows)
            yield self._replace(
                rows=end - start,
                event_times=self.event_times if once else self.event_times[start:end],
                values=self.values[start * width : end * width],
                predictions=self.predictions[start:end],
                scores=None if self.scores is None else self.scores[start:end],
                first_row=self.first_row + start,
            )

    def plain_values(self) -> Sequence[FeatureValue]:
        """Return the values as such, a missing one as None. Raise ValueError where they do not fit, see ``misfits``."""
        if not isinstance(self.values, bytes | memoryview):
            return self.values
        if not self.values:
            return ()
        count = self.rows * len(self.names)
        code = {count * size: code for size, code in _FLOATS.items()}.get(len(self.values))
        if code is None:
            raise ValueError("the bytes of the values are no floats of rows x names")
        numbers = array(code)
        numbers.frombytes(self.values)
        if sys.byteorder == "big":
            numbers.byteswap()
        return [None if number != number else number for number in numbers]  # noqa: PLR0124  # NaN

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Yield each field that does not fit the others, and what it has to be; never a value."""
        rows, width = self.rows, len(self.names)
        if rows < 1:
            yield "rows", "must be at least 1"
        if self.first_row < 0:
            yield "first_row", "must be at least 0"
        if len(self.event_times) not in (1, rows):
            yield "event_times", f"has {len(self.event_times)} times for {rows} rows: one for all, or one a row"
        if len(set(self.names)) != width:
            yield "names", "has a name twice"
        count = rows * width
        if isinstance(self.values, bytes | memoryview):
            sizes = [count * size for size in _FLOATS]
            if len(self.values) not in sizes:
                wanted = " or ".join(map(str, sizes))
                yield "values", f"has {len(self.values)} bytes; {rows} rows of {width} names have {wanted}"
        elif len(self.values) != count:
            yield "values", f"has {len(self.values)} values; {rows} rows of {width} names have {count}"
        if len(self.predictions) not in (0, rows):
            yield "predictions", f"has {len(self.predictions)} for {rows} rows: none, or one a row"
        if self.scores is not None and len(self.scores) != rows:
            yield "scores", f"has {len(self.scores)} for {rows} rows: null, or one a row"


def name_frame(source: str) -> bytes:
    """Return how a body of blocks begins: which inference instance sends."""
    return framed((source.encode(),))
