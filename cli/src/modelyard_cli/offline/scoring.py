"""Ask for the rows of a table: some requests at once, answers in order, wrong rows found, what passes tried again.

A refused batch is halved until the wrong rows stand alone, so that each gets the server's own words, whatever else is
in its batch. So is one that is too large.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from modelyard_client import InferenceClient, Scored
from modelyard_common.errors import Invalid, Overloaded, TooLarge, Unavailable
from modelyard_contracts.problem import FieldError
from pyarrow import ipc

from modelyard_cli.offline.order import OnError
from modelyard_cli.offline.tables import Table, rechunked

__all__ = ["Part", "Refused", "Scorer"]

_LONGEST_PAUSE_S = 10.0
_ROW = re.compile(r"\[(\d+)\]\.(.+?): (.+)", re.DOTALL)
"""How the server names a wrong value: the row within the request, the feature, what is wrong."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that the model refuses.

    Attributes:
        row: from 1, the first below the header.
    """

    row: int
    column: str
    reason: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows, answered or refused.

    Attributes:
        answers: one row each: what is kept, the answers, id and version; None for a refused row.
    """

    rows: int
    answers: pa.Table | None = None
    refused: Refused | None = None


@dataclass(slots=True)
class Scorer:
    """Scores one table by one version.

    Attributes:
        features: the columns that are sent.
        kept: the columns that are handed on.
        version: a digest; None leaves it to the routing table.
        patience_s: how long a request that finds no place is tried again.
    """

    client: InferenceClient
    model: str
    table: Table
    name: str
    features: Sequence[str]
    kept: Sequence[str]
    version: str | None
    logged: bool
    batch_rows: int
    concurrency: int
    patience_s: float
    on_error: OnError
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)

    def parts(self, first: int, last: int | None) -> Iterator[Part]:
        """Yield the rows from first to last, in order.

        Raises:
            Invalid: the table does not fit the model, or a row does not and ``on_error`` is fail.
            ModelyardError: the server refused, or had no place for longer than ``patience_s``.
        """
        columns = list(dict.fromkeys([*self.features, *self.kept]))
        batches = rechunked(self.table.batches(columns, first, last), self.batch_rows)
        waiting: deque[Future[list[Part]]] = deque()
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="score") as pool:
            try:
                for batch in batches:
                    waiting.append(pool.submit(self._score, first, batch))
                    first += batch.num_rows
                    # Twice as many as are asked at once: while the first is late, the others have something to do.
                    if len(waiting) >= 2 * self.concurrency:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                self._stopped.set()
                for future in waiting:
                    future.cancel()

    def _score(self, first: int, batch: pa.RecordBatch) -> list[Part]:
        try:
            return [Part(batch.num_rows, answers=self._answered(batch, self._ask(batch)))]
        except TooLarge as exc:
            if batch.num_rows == 1:
                raise TooLarge(f"{self.name}, row {first + 1}: {exc.message}", errors=exc.errors) from exc
        except Invalid as exc:
            refused = self._refused(first, batch, exc)
            if self.on_error is OnError.fail:
                raise Invalid(
                    f"{self.name}, row {refused.row}, column {refused.column}: {refused.reason}; mend it, or leave "
                    "such rows out with --on-error skip or reject-file",
                    errors=(FieldError(path=f"row {refused.row}.{refused.column}", message=refused.reason),),
                ) from exc
            if batch.num_rows == 1:
                return [Part(1, refused=refused)]
        half = batch.num_rows // 2
        return self._score(first, batch.slice(0, half)) + self._score(first + half, batch.slice(half))

    def _ask(self, batch: pa.RecordBatch) -> Scored:
        """Return the server's answer, once it has a place for the request."""
        content, media_type = self.table.encode(batch.select(list(self.features)))
        deadline, attempt = time.monotonic() + self.patience_s, 0
        while True:
            try:
                return self.client.score(self.model, content, media_type, version=self.version, logged=self.logged)
            except (Overloaded, Unavailable) as exc:
                pause_s = max(exc.retry_after_s or 0.0, min(_LONGEST_PAUSE_S, 0.1 * 2**attempt))
                pause_s *= random.uniform(1.0, 1.25)  # those who were sent away together do not come back together
                if time.monotonic() + pause_s > deadline or self._stopped.wait(pause_s):
                    raise
                attempt += 1

    def _answered(self, batch: pa.RecordBatch, scored: Scored) -> pa.Table:
        answers = ipc.open_stream(scored.table).read_all()
        rows = batch.num_rows
        if answers.num_rows != rows:
            raise Unavailable(f"inference answered {answers.num_rows} rows for {rows}")
        columns = {name: batch.column(name) for name in self.kept}
        for name in answers.column_names:
            columns["prediction" if name == "predictions" else name] = answers.column(name)
        columns["prediction_id"] = pa.array([f"{scored.id}/{row}" for row in range(rows)])
        columns["model_version"] = pa.repeat(scored.version, rows)
        if len(columns) != len(self.kept) + answers.num_columns + 2:
            raise Invalid(f"--keep: an answer is called {_both(self.kept, answers.column_names)!r}; rename the column")
        return pa.table(columns)

    def _refused(self, first: int, batch: pa.RecordBatch, error: Invalid) -> Refused:
        """Return the row that an error is about. Raise Invalid when it is about the table."""
        found = _ROW.fullmatch(error.message)
        if found is None or int(found[1]) >= batch.num_rows:
            raise Invalid(f"{self.name}: {error.message}", errors=error.errors) from error
        if found[2] not in self.features:
            raise Invalid(f"{self.name} has no column {found[2]!r}, which {self.model} asks for") from error
        row = int(found[1])
        values: dict[str, Any] = batch.slice(row, 1).to_pylist()[0]
        return Refused(first + row + 1, found[2], found[3], values)


def _both(kept: Sequence[str], names: Sequence[str]) -> str:
    taken = {"prediction", "prediction_id", "model_version", *names}
    return next(name for name in kept if name in taken)
