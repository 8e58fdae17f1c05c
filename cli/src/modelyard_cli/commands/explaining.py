"""Asking why: what each feature of a row added to its answer."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from modelyard_common.errors import Invalid
from modelyard_contracts.explanations_v1 import ExplainResponse

from modelyard_cli.commands.browsing import OneModel, Output
from modelyard_cli.commands.changing import version_ref
from modelyard_cli.commands.predicting import read_rows
from modelyard_cli.output import OUT, Format, print_json, show
from modelyard_cli.session import Session

__all__ = ["add_to"]

_MEANINGS = {
    "linear": "the model adds its features up",
    "exact": "over all subsets of features",
    "trees": "over all leaves of its trees",
    "permutation": "estimates, with their standard errors",
}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Serve")(explain)


def explain(
    context: typer.Context,
    model: OneModel,
    file: Annotated[
        str, typer.Option("--file", "-f", help="Rows as JSON (an object or a list), CSV or Parquet; - is stdin, JSON.")
    ] = "-",
    rows: Annotated[int, typer.Option(min=1, max=16, help="Only the first ones.")] = 1,
    version: Annotated[str, typer.Option(help="A number, digest or alias; the champion otherwise.")] = "",
    output: Output = Format.table,
) -> None:
    """Tell what each feature of a row added to the model's answer, against what is usual.

    The base is the average answer; base and contributions sum to the answer. The largest come first.

    Examples:
      modelyard explain diabetes -f rows.csv
      modelyard explain diabetes -f rows.csv --rows 3 -o json
      modelyard explain diabetes -f rows.csv --version @candidate
    """
    session: Session = context.obj
    client = session.connect().inference
    reference = version if version.startswith("@") else str(version_ref(version)) if version else None
    names = {tensor.name for tensor in client.metadata(model, reference).inputs}
    given = [{name: value for name, value in row.items() if name in names} for row in read_rows(file)[:rows]]
    if not any(given):
        raise Invalid(f"the rows have no feature of {model}; its features are {', '.join(sorted(names))}")
    answer = client.explain(model, given, version=reference)
    if output is Format.json:
        print_json(answer)
        return
    _show(answer, given)


def _show(answer: ExplainResponse, given: list[dict[str, Any]]) -> None:
    for place, (one, row) in enumerate(zip(answer.explanations, given, strict=True)):
        of = f" of {one.label}" if one.label is not None else ""
        OUT.print(f"[bold]row {place + 1}[/bold]: {one.prediction}, {answer.space}{of} {one.value:.4g}")
        ordered = sorted(one.contributions.items(), key=lambda item: -abs(item[1]))
        errors = one.standard_errors
        columns: dict[str, Any] = {
            "feature": lambda item: item[0],
            "value": lambda item, row=row: row.get(item[0]),
            "adds": lambda item: f"{item[1]:+.4g}",
        }
        if errors is not None:
            columns["error"] = lambda item, errors=errors: f"{errors[item[0]]:.2g}"
        show([("(base)", one.base_value), *ordered] if errors is None else ordered, columns, Format.table)
    OUT.print(
        f"[dim]{answer.method}: {_MEANINGS[answer.method]}; against {answer.background.rows} rows of the "
        f"{answer.background.source}; version {answer.model_version}[/dim]",
        soft_wrap=True,
    )
