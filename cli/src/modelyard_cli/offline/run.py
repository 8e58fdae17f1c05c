"""One file, from the input to the output: which rows, by which version, into what, and what became of them."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from modelyard_client import InferenceClient
from modelyard_common.errors import Conflict, Invalid, NotFound

from modelyard_cli.offline.formats import TableFormat
from modelyard_cli.offline.order import OnError, Order, Outcome
from modelyard_cli.offline.output import TableOutput, made_by, open_output, whole_file
from modelyard_cli.offline.scoring import Refused, Scorer
from modelyard_cli.offline.tables import Table, open_table

__all__ = ["Terminated", "score_file"]

Progress = Callable[[int, int | None], None]
"""Told how many rows are done, and of how many if that is known."""


class Terminated(SystemExit):
    """SIGTERM: the command ends as it would have, but leaves nothing half-written."""


def score_file(client: InferenceClient, order: Order, progress: Progress = lambda done, of: None) -> Outcome:
    """Score a file, and write its output whole or not at all.

    Raises:
        NotFound: no such file.
        Conflict: the output is there already.
        Invalid: the file cannot be read, does not fit the model, or holds a row that does not.
    """
    if not order.source.is_file():
        raise NotFound(f"there is no file {order.source}")
    if not order.output.parent.is_dir():
        raise NotFound(f"there is no folder {order.output.parent} for the output")
    if order.output.exists() and not order.force:
        return _finished(order)
    started = time.monotonic()
    origin = order.origin()  # before it is read: what is put in its place meanwhile is another
    with open_table(order.source, order.source_format) as table, _ending_well():
        scorer = _scorer(client, order, table)
        first, last = _range(order, table)
        rows, refused = _write(order, origin, scorer, first, last, progress)
    seconds = time.monotonic() - started
    kept = order.on_error is OnError.reject_file and refused > 0
    return Outcome(order.output, rows, refused, order.rejects if kept else None, seconds)


def _finished(order: Order) -> Outcome:
    """Return the outcome of a shard that was finished before. Raise Conflict for any other output."""
    if order.shard is None:
        raise Conflict(f"{order.output} is there already; --force replaces it")
    origin = made_by(order.output, order.target_format)
    if other := [name for name, value in order.origin().items() if origin.get(name) != value]:
        raise Conflict(f"{order.output} is there already, of another {other[0]}; --force replaces it")
    return Outcome(order.output, done_before=True)


def _scorer(client: InferenceClient, order: Order, table: Table) -> Scorer:
    if missing := [name for name in order.keep if name not in table.names]:
        raise Invalid(f"--keep: {order.source} has no column {missing[0]!r}; it has {', '.join(table.names)}")
    names = [tensor.name for tensor in client.metadata(order.model, order.version).inputs]
    features = [name for name in names if name in table.names]
    if not features:
        raise Invalid(f"{order.source} has no feature of {order.model}; its features are {', '.join(names)}")
    return Scorer(
        client=client,
        model=order.model,
        table=table,
        name=str(order.source),
        features=features,
        kept=order.keep,
        version=order.version,
        logged=order.logged,
        batch_rows=order.batch_rows,
        concurrency=order.concurrency,
        patience_s=order.patience_s,
        on_error=order.on_error,
    )


def _range(order: Order, table: Table) -> tuple[int, int | None]:
    """Return the first row and the one after the last; None where only reading on tells."""
    if order.shard is None:
        known = order.source_format is TableFormat.parquet
        return 0, min(table.count(), order.most_rows or table.count()) if known else order.most_rows
    count = table.count()
    return order.shard.range(min(count, order.most_rows or count))


def _write(
    order: Order, origin: Mapping[str, Any], scorer: Scorer, first: int, last: int | None, progress: Progress
) -> tuple[int, int]:
    """Write what the scorer says; return how many rows were answered and how many refused."""
    refused: list[int] = []
    with ExitStack() as open_files:
        output = open_files.enter_context(
            open_output(order.output, order.target_format, origin, noted=order.shard is not None)
        )
        reject = open_files.enter_context(_rejects(order))
        one: Refused | None = None
        for part in scorer.parts(first, last):
            if part.answers is not None:
                output.write(part.answers)
            if part.refused is not None:
                one = one or part.refused
                refused.append(part.refused.row)
                reject(part.refused)
            progress(output.rows + len(refused), None if last is None else last - first)
        _refuse_nothing(order, output, one)
    return output.rows, len(refused)


def _refuse_nothing(order: Order, output: TableOutput, refused: Refused | None) -> None:
    if output.rows:
        return
    if refused is None:
        raise Invalid(f"{order.source} has no rows")
    raise Invalid(
        f"{order.source}: the model refuses every row; row {refused.row}, column {refused.column}: {refused.reason}"
    )


@contextmanager
def _rejects(order: Order) -> Iterator[Callable[[Refused], None]]:
    """Give what writes a refused row down, as JSON a line, if they are to be kept."""
    if order.on_error is not OnError.reject_file:
        yield lambda refused: None
        return
    with whole_file(order.rejects) as sink:

        def write(refused: Refused) -> None:
            line = {
                "row": refused.row,
                "column": refused.column,
                "reason": refused.reason,
                "values": refused.values,
            }
            sink.write(json.dumps(line, default=str, ensure_ascii=False).encode() + b"\n")

        yield write
    if not order.rejects.stat().st_size:
        order.rejects.unlink()


@contextmanager
def _ending_well() -> Iterator[None]:
    """Make SIGTERM end this as an error would, so that what was begun is taken away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
