"""Looking at drift: the last windows, and the report on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.drift_v1 import WindowView

from modelyard_cli.commands.browsing import OneModel, Output
from modelyard_cli.commands.describing import drift_lines
from modelyard_cli.output import OUT, Format, print_json, severity, show, show_one

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (drift, report):
        app.command(rich_help_panel="Watch")(command)


def drift(
    context: typer.Context,
    model: OneModel,
    last: Annotated[int, typer.Option(min=1, help="How many windows.")] = 10,
    output: Output = Format.table,
) -> None:
    """Show where drift stands, and the last windows: how far each feature moved, and how the model did.

    A feature has drifted when both keys turn: its PSI is above monitor.drift.psi and the change is significant.

    Examples:
      modelyard drift electricity
      modelyard drift electricity --last 3 -o json | jq '.windows[].features'
      modelyard report electricity w3 --html w3.html     with plots
    """
    client = context.obj.connect().drift
    status = client.status(model)
    windows = client.windows(model)[:last]
    if output is Format.json:
        print_json({"status": status, "windows": windows})
        return
    show_one(status, {name: value for name, value in drift_lines(status).items() if value}, output)
    OUT.print()
    show(
        windows,
        {
            "window": lambda w: w.id,
            "rows": lambda w: f"{w.first_row}-{w.first_row + w.rows - 1}",
            "until": lambda w: f"{w.event_time_until:%Y-%m-%d %H:%M}" if w.event_time_until else None,
            "severity": lambda w: severity(w.severity if w.state == "scored" else w.state),
            "performance": lambda w: ", ".join(f"{p.metric} {p.value:.3f} ({p.rows})" for p in w.performance),
            "drifted (psi)": _drifted,
            "faults": lambda w: "; ".join(w.quality),
        },
        output,
        prose=("drifted (psi)", "faults"),
        empty="no window has closed yet; its size is monitor.window in the manifest",
    )


def _drifted(window: WindowView) -> str:
    parts = [*window.features, *([window.prediction] if window.prediction else [])]
    found = sorted((part for part in parts if part.drifted), key=lambda part: -part.psi)
    return ", ".join(f"{part.feature} ({part.psi:.2f})" for part in found)


def report(
    context: typer.Context,
    model: OneModel,
    window: Annotated[str, typer.Argument(help="A window's id, such as w3; the last one when left out.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write the report as a page that needs nothing else.")] = None,
) -> None:
    """Print the report on a window as JSON, or write it as an HTML page with plots.

    Examples:
      modelyard report electricity | jq .features
      modelyard report electricity w3 --html w3.html
    """
    client = context.obj.connect().drift
    if not window:
        windows = client.windows(model)
        if not windows:
            raise NotFound(f"no window of {model} has closed yet; `modelyard drift {model}` shows the open one")
        window = windows[0].id
    if html is None:
        print_json(client.report(model, window))
        return
    try:
        html.write_text(client.report_html(model, window), encoding="utf-8")
    except OSError as exc:
        raise Invalid(f"--html: {html} cannot be written ({exc.strerror})") from exc
    OUT.print(f"wrote {html}")
