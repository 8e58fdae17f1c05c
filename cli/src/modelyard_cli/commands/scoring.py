"""``modelyard predict`` into a file: here, or as a Job that is printed for kubectl."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from modelyard_common.errors import Invalid
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from modelyard_cli.commands.changing import version_ref
from modelyard_cli.offline.formats import TableFormat, format_of
from modelyard_cli.offline.job import JobOrder, job_manifest
from modelyard_cli.offline.order import OnError, Order, Outcome
from modelyard_cli.offline.shards import Shard
from modelyard_cli.output import ERR, OUT, short
from modelyard_cli.session import Session

__all__ = ["FileOptions", "score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """The options as they were given."""

    model: str
    source: str
    source_format: TableFormat | None
    target: Path
    target_format: TableFormat
    keep: tuple[str, ...]
    version: str
    log: bool
    shard: str
    shards: int | None
    shard_index: int | None
    most_rows: int | None
    batch_rows: int
    concurrency: int
    patience_s: float
    on_error: str
    force: bool
    job_manifest: bool
    parallelism: int
    image: str
    claim: str
    mount: str
    job_url: str
    token_secret: str


def score(session: Session, options: FileOptions) -> None:
    """Score a file, or print the Job that does."""
    order = _order(session, options)
    if options.job_manifest:
        sys.stdout.write(yaml.safe_dump(job_manifest(_job(options, order)), sort_keys=False))
        return
    from modelyard_cli.offline.run import score_file  # noqa: PLC0415  # heavy; most commands need no tables

    client = session.connect().inference
    with _progress(f"{order.source.name} by {order.model}") as told:
        outcome = score_file(client, order, told)
    _tell(order, outcome)


def _order(session: Session, options: FileOptions) -> Order:
    source_format = options.source_format or format_of(options.source)
    if options.source == "-" or source_format is None:
        raise Invalid(
            f"-f: {options.source!r} does not end in .parquet, .arrow or .csv; say --format, or name another file"
        )
    if options.on_error not in (known := [str(one) for one in OnError]):
        raise Invalid(f"--on-error: {options.on_error!r} is none of {', '.join(known)}")
    return Order(
        model=options.model,
        source=Path(options.source),
        source_format=source_format,
        target=options.target,
        target_format=options.target_format,
        keep=tuple(dict.fromkeys(options.keep)),
        version=_version(session, options),
        logged=options.log,
        shard=_shard(options),
        most_rows=options.most_rows,
        batch_rows=options.batch_rows,
        concurrency=options.concurrency,
        patience_s=options.patience_s,
        on_error=OnError(options.on_error),
        force=options.force,
    )


def _version(session: Session, options: FileOptions) -> str | None:
    """Return the digest of the one version that answers all rows, whatever is promoted meanwhile.

    Rows that count as production are answered as production is, unless a version is named.
    """
    if options.log and not options.version:
        return None
    named = options.version or "@champion"
    reference = named if named.startswith("@") else str(version_ref(named))
    if options.job_manifest and reference.startswith("sha256:"):
        return reference  # a Job can be written down where no server is near
    return session.connect().inference.version(options.model, reference).digest


def _shard(options: FileOptions) -> Shard | None:
    if options.shard and options.shards:
        raise Invalid("--shard is one part, --shards the parts of a Job; give one of them")
    if options.shard:
        return Shard.parse(options.shard)
    if options.shards is None or options.job_manifest:
        return None
    if options.shard_index is None:
        raise Invalid("--shards: there is no JOB_COMPLETION_INDEX here; say --shard K/N, or --job-manifest")
    return Shard(options.shard_index, options.shards)


def _job(options: FileOptions, order: Order) -> JobOrder:
    if options.shards is None or not options.claim:
        raise Invalid("--job-manifest: say --shards N, and --claim with the volume claim that holds the files")
    secret, _, key = options.token_secret.partition("/")
    if options.token_secret and not (secret and key):
        raise Invalid("--token-secret: must be NAME/KEY")
    arguments = ["predict", order.model, f"--file={order.source}", f"--output={order.target}"]
    arguments += [f"--format={order.source_format}", f"--shards={options.shards}"]
    arguments += [f"--version={order.version}"] if order.version else []
    arguments += [f"--keep={','.join(order.keep)}"] if order.keep else []
    arguments += [f"--rows={order.most_rows}"] if order.most_rows else []
    arguments += [f"--on-error={order.on_error}", f"--batch-rows={order.batch_rows}"]
    arguments += [f"--concurrency={order.concurrency}", f"--retry-for={order.patience_s:g}"]
    arguments += ["--log"] if order.logged else []
    arguments += ["--force"] if order.force else []
    return JobOrder(
        model=order.model,
        arguments=arguments,
        shards=options.shards,
        parallelism=options.parallelism,
        image=options.image,
        claim=options.claim,
        mount=options.mount,
        inference_url=options.job_url,
        token_secret=(secret, key) if secret else None,
    )


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give what shows how far it is, where somebody looks."""
    if not ERR.is_terminal:
        yield lambda done, of: None
        return
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=ERR, transient=True) as bar:
        task = bar.add_task(escape(title), total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _tell(order: Order, outcome: Outcome) -> None:
    if outcome.done_before:
        ERR.print(f"{outcome.output} is there already; --force does it again", markup=False, soft_wrap=True)
        return
    by = f"version {short(order.version)}" if order.version else "the routing table"
    speed = outcome.rows / outcome.seconds if outcome.seconds else 0.0
    OUT.print(
        f"wrote {outcome.output}: {outcome.rows:,} rows by {by}, {speed:,.0f} a second", markup=False, soft_wrap=True
    )
    if outcome.refused:
        where = f"; see {outcome.rejects}" if outcome.rejects else ""
        ERR.print(f"{outcome.refused:,} rows were refused and left out{where}", markup=False, soft_wrap=True)
