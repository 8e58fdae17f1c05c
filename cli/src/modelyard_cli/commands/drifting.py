"""Looking at drift: the last windows, and the report on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from modelyard_contracts.drift_v1 import WindowView
from rich.text import Text

from modelyard_cli.output import ERR, OUT, Format, print_json, show
from modelyard_cli.session import Session

__all__ = ["add_to"]

_COLOURS = {"critical": "red", "high": "red", "low": "yellow", "none": "green"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (drift, report):
        app.command(rich_help_panel="Watch")(command)


def drift(
    context: typer.Context,
    model: str,
    last: Annotated[int, typer.Option(min=1, help="How many windows.")] = 10,
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.table,
) -> None:
    """Show the last windows of a model: how far each feature moved, and how the model did."""
    session: Session = context.obj
    client = session.connect().drift
    windows = client.windows(model)[:last]
    if output is Format.json:
        print_json({"status": client.status(model), "windows": windows})
        return
    show(
        windows,
        {
            "window": lambda w: w.id,
            "rows": lambda w: f"{w.first_row}-{w.first_row + w.rows - 1}",
            "until": lambda w: f"{w.event_time_until:%Y-%m-%d %H:%M}" if w.event_time_until else None,
            "severity": lambda w: (
                Text(w.severity, style=_COLOURS[w.severity])
                if w.state == "scored"
                else Text("insufficient", style="dim")
            ),
            "drifted (psi)": _drifted,
            "performance": lambda w: ", ".join(f"{p.metric} {p.value:.3f} ({p.rows})" for p in w.performance),
        },
        output,
        empty="no window has closed yet",
    )


def _drifted(window: WindowView) -> str:
    parts = [*window.features, *([window.prediction] if window.prediction else [])]
    found = sorted((part for part in parts if part.drifted), key=lambda part: -part.psi)
    return ", ".join(f"{part.feature} ({part.psi:.2f})" for part in found)


def report(
    context: typer.Context,
    model: str,
    window: Annotated[str, typer.Argument(help="A window's id, such as w3; the last one when left out.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write the report as a page that needs nothing else.")] = None,
) -> None:
    """Print the report on a window as JSON, or write it as an HTML page with plots."""
    session: Session = context.obj
    client = session.connect().drift
    if not window:
        windows = client.windows(model)
        if not windows:
            ERR.print("no window has closed yet")
            raise typer.Exit(3)
        window = windows[0].id
    if html is None:
        print_json(client.report(model, window))
        return
    html.write_text(client.report_html(model, window), encoding="utf-8")
    OUT.print(f"wrote {html}")
