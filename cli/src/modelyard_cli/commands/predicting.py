"""Asking a model from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from modelyard_client import InferenceClient, Prediction
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.problem import FieldError

from modelyard_cli.commands.browsing import OneModel, Output
from modelyard_cli.commands.changing import version_ref
from modelyard_cli.output import OUT, Format, print_json, show
from modelyard_cli.session import Session

__all__ = ["add_to", "read_rows"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Serve")(predict)


def predict(
    context: typer.Context,
    model: OneModel,
    file: Annotated[
        str, typer.Option("--file", "-f", help="Rows as JSON (an object or a list), CSV or Parquet; - is stdin, JSON.")
    ] = "-",
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first ones.")] = None,
    version: Annotated[str, typer.Option(help="A number or digest; the routing table decides otherwise.")] = "",
    output: Output = Format.table,
) -> None:
    """Predict rows with the version in force. Columns that are no features, such as the target, are left out.

    Examples:
      modelyard predict diabetes -f rows.csv --rows 3
      echo '{"age": 59, "sex": 2, "bmi": 32.1}' | modelyard predict diabetes
      modelyard predict diabetes -f rows.parquet --version 2 -o json
    """
    session: Session = context.obj
    given = read_rows(file)[:rows]
    answer = _ask(session.connect().inference, model, given, str(version_ref(version)) if version else None)
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
