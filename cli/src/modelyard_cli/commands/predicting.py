"""Asking a model from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from modelyard_common.errors import Invalid, NotFound

from modelyard_cli.output import OUT, Format, print_json, show
from modelyard_cli.session import Session

__all__ = ["add_to", "read_rows"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Serve")(predict)


def predict(
    context: typer.Context,
    model: str,
    file: Annotated[
        str, typer.Option("--file", "-f", help="Rows as JSON (an object or a list), CSV or Parquet; - is stdin, JSON.")
    ] = "-",
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first ones.")] = None,
    version: Annotated[str, typer.Option(help="A number or digest; the routing table decides otherwise.")] = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.table,
) -> None:
    """Predict rows with the version in force. Columns that are no features, such as the target, are left out."""
    session: Session = context.obj
    inference = session.connect().inference
    known = {tensor.name for tensor in inference.metadata(model).inputs}
    given = read_rows(file)[:rows]
    cut = [{name: value for name, value in row.items() if name in known} for row in given]
    answer = inference.infer(model, cut, version=version or None)
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
        return table
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise Invalid(f"{'standard input' if file == '-' else file} is not JSON: {exc}") from exc
    rows = [found] if isinstance(found, dict) else found
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Invalid("rows are a JSON object, or a list of objects: feature to value")
    return rows
