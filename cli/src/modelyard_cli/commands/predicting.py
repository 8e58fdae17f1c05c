"""Asking a model from the command line: a few rows, or a file of any size into another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from modelyard_client import InferenceClient, Prediction
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.problem import FieldError

from modelyard_cli.commands.browsing import OneModel
from modelyard_cli.commands.changing import version_ref
from modelyard_cli.commands.scoring import FileOptions, score
from modelyard_cli.offline.formats import TableFormat, format_of
from modelyard_cli.output import OUT, Format, print_json, show
from modelyard_cli.session import Session

__all__ = ["add_to", "read_rows"]

_FILE, _JOB = "Into a file", "On a cluster"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Serve")(predict)


def predict(  # noqa: PLR0913, PLR0917  # the options of a command
    context: typer.Context,
    model: OneModel,
    file: Annotated[
        str,
        typer.Option("--file", "-f", help="Rows as JSON (an object or a list), CSV or Parquet; - is stdin, JSON."),
    ] = "-",
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first ones.")] = None,
    version: Annotated[
        str, typer.Option(help="A number, digest or alias. Otherwise the routing table decides; for a file: @champion.")
    ] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help="table, json, or a .parquet, .arrow or .csv that is written.")
    ] = "table",
    keep: Annotated[
        str, typer.Option(help="Columns to hand on, with commas between them.", rich_help_panel=_FILE)
    ] = "",
    format_: Annotated[
        TableFormat | None, typer.Option("--format", help="Of the input, if not by its name.", rich_help_panel=_FILE)
    ] = None,
    on_error: Annotated[
        str, typer.Option(help="fail, skip or reject-file: for rows that the model refuses.", rich_help_panel=_FILE)
    ] = "fail",
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows of one request.", rich_help_panel=_FILE)] = 1000,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.", rich_help_panel=_FILE)] = 4,
    retry_for: Annotated[
        float, typer.Option(min=0, help="Seconds to try a request for which there is no place.", rich_help_panel=_FILE)
    ] = 120.0,
    log: Annotated[
        bool, typer.Option("--log", help="Let drift count these rows as production.", rich_help_panel=_FILE)
    ] = False,
    shard: Annotated[str, typer.Option(help="K/N: only this part, from 0/N.", rich_help_panel=_FILE)] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.", rich_help_panel=_FILE)] = False,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Parts; a pod's is JOB_COMPLETION_INDEX.", rich_help_panel=_JOB)
    ] = None,
    shard_index: Annotated[int | None, typer.Option(envvar="JOB_COMPLETION_INDEX", hidden=True)] = None,
    job_manifest: Annotated[
        bool, typer.Option("--job-manifest", help="Print a Kubernetes Job that does it.", rich_help_panel=_JOB)
    ] = False,
    parallelism: Annotated[int, typer.Option(min=1, help="Pods at once.", rich_help_panel=_JOB)] = 4,
    image: Annotated[str, typer.Option(help="With this command.", rich_help_panel=_JOB)] = "modelyard/cli:0.1.0",
    claim: Annotated[str, typer.Option(help="A volume claim that holds the files.", rich_help_panel=_JOB)] = "",
    mount: Annotated[str, typer.Option(help="Where pods see it.", rich_help_panel=_JOB)] = "/data",
    job_url: Annotated[
        str, typer.Option(help="Inference, for pods.", rich_help_panel=_JOB)
    ] = "http://modelyard-inference:8080",
    token_secret: Annotated[str, typer.Option(help="NAME/KEY of a Secret with a token.", rich_help_panel=_JOB)] = "",
) -> None:
    """Predict rows with the version in force. Columns that are no features, such as the target, are left out.

    A file as output is streamed: it may be of any size, and is there whole or not at all.

    Examples:
      modelyard predict diabetes -f rows.csv --rows 3
      echo '{"age": 59, "sex": 2, "bmi": 32.1}' | modelyard predict diabetes
      modelyard predict diabetes -f rows.parquet --version 2 -o json
      modelyard predict diabetes -f in.parquet -o out.parquet --keep id
      modelyard predict diabetes -f in.csv -o out.csv --shard 0/4
    """
    session: Session = context.obj
    form = format_of(output)
    if form is not None:
        options = FileOptions(
            model=model,
            source=file,
            source_format=format_,
            target=Path(output),
            target_format=form,
            keep=tuple(name for name in (part.strip() for part in keep.split(",")) if name),
            version=version,
            log=log,
            shard=shard,
            shards=shards,
            shard_index=shard_index,
            most_rows=rows,
            batch_rows=batch_rows,
            concurrency=concurrency,
            patience_s=retry_for,
            on_error=on_error,
            force=force,
            job_manifest=job_manifest,
            parallelism=parallelism,
            image=image,
            claim=claim,
            mount=mount,
            job_url=job_url,
            token_secret=token_secret,
        )
        score(session, options)
        return
    if output not in Format.__members__:
        raise Invalid(f"-o: {output!r} is neither table nor json, nor a file that ends in .parquet, .arrow or .csv")
    only_for_files = {"keep": keep, "format": format_, "log": log, "shard": shard, "shards": shards, "force": force}
    if given := next((name for name, value in {**only_for_files, "job-manifest": job_manifest}.items() if value), ""):
        raise Invalid(f"--{given}: is for an output that is a file, such as -o out.parquet")
    _print(session, model, read_rows(file)[:rows], version, Format(output))


def _print(session: Session, model: str, given: list[dict[str, Any]], version: str, output: Format) -> None:
    reference = version if version.startswith("@") else str(version_ref(version)) if version else None
    answer = _ask(session.connect().inference, model, given, reference)
    if output is Format.json:
        print_json(
            {
                "id": answer.id,
                "model": answer.model,
                "version": answer.version,
                "predictions": answer.predictions,
                "probabilities": answer.probabilities,
            }
        )
        return
    items = [
        (place, value, answer.probabilities[place] if answer.probabilities else None)
        for place, value in enumerate(answer.predictions)
    ]
    columns: dict[str, Any] = {"id": lambda item: f"{answer.id}/{item[0]}", "prediction": lambda item: item[1]}
    if answer.probabilities:
        columns["probabilities"] = lambda item: ", ".join(f"{p:.3f}" for p in item[2])
    show(items, columns, output)
    OUT.print(f"[dim]answered by version {answer.version}[/dim]")


def _ask(inference: InferenceClient, model: str, given: list[dict[str, Any]], version: str | None) -> Prediction:
    """Return the answer to the features of the rows. Raise Invalid, naming also the columns that were left out."""
    names = [tensor.name for tensor in inference.metadata(model).inputs]
    cut = [{name: value for name, value in row.items() if name in names} for row in given]
    try:
        return inference.infer(model, cut, version=version)
    except Invalid as exc:
        others = sorted({name for row in given for name in row} - set(names))
        if not others:
            raise
        note = f"no features of {model}; its features are {', '.join(names)}"
        left_out = FieldError(path=f"left out: {', '.join(others)}", message=note)
        raise Invalid(exc.message, errors=(*exc.errors, left_out)) from exc


def read_rows(file: str) -> list[dict[str, Any]]:
    """Return rows from JSON, CSV or Parquet.

    Raises:
        NotFound: there is no such file.
        Invalid: it holds no rows.
    """
    if file != "-" and not Path(file).is_file():
        raise NotFound(f"there is no file {file}")
    if file.endswith((".csv", ".parquet")):
        import pyarrow as pa  # noqa: PLC0415  # heavy; most commands need no tables
        import pyarrow.csv  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415

        read = pyarrow.csv.read_csv if file.endswith(".csv") else pyarrow.parquet.read_table
        try:
            table: list[dict[str, Any]] = read(file).to_pylist()
        except (pa.ArrowInvalid, OSError) as exc:
            raise Invalid(f"{file} cannot be read: {exc}") from exc
        if not table:
            raise Invalid(f"{file} has no rows")
        return table
    named = "standard input" if file == "-" else file
    if file == "-" and sys.stdin.isatty():
        raise Invalid("give rows with --file, or send them to standard input as JSON")
    try:
        found = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except OSError as exc:
        raise Invalid(f"{named} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise Invalid(f"{named} is not JSON (.csv and .parquet are told by their names): {exc}") from exc
    rows = [found] if isinstance(found, dict) else found
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Invalid(f"{named}: rows are a JSON object, or a list of objects: feature to value")
    return rows
