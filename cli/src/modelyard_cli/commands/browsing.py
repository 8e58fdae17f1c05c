"""Looking: get models, versions, runs, datasets, episodes, events."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from modelyard_contracts.registry_v1 import LedgerEntry
from rich.text import Text

from modelyard_cli.output import OUT, Format, ago, print_json, severity, short, show
from modelyard_cli.session import Session

__all__ = ["OneModel", "Output", "add_to", "run_columns", "version_columns"]

Output = Annotated[Format, typer.Option("--output", "-o", help="table or json.")]
OneModel = Annotated[str, typer.Argument(help="The model's name.")]

get = typer.Typer(
    no_args_is_help=True,
    help="""List things: models, versions, runs, datasets, episodes, events.

    Examples:
      modelyard get models
      modelyard get versions diabetes
      modelyard get runs diabetes -o json | jq -r '.[0].id'
      modelyard get events       every decision; is the chain of hashes intact?""",
)
_STATES = {"champion": "green", "candidate": "yellow", "aborted": "red", "refused": "red"}
_RUN_STATES = {"succeeded": "green", "failed": "red", "timed_out": "red", "running": "yellow"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(get, name="get", rich_help_panel="Look")


def _styled(value: str, styles: dict[str, str]) -> Text:
    return Text(value, style=styles.get(value, ""))


@get.command("models")
def get_models(context: typer.Context, output: Output = Format.table) -> None:
    """List the models."""
    session: Session = context.obj
    models = [view for view in session.connect().registry.models() if not view.deleted]
    show(
        models,
        {
            "name": lambda m: m.name,
            "task": lambda m: m.spec.get("task"),
            "champion": lambda m: f"{m.champion.number} ({short(m.champion.digest)})" if m.champion else None,
            "candidate": lambda m: m.candidate.number if m.candidate else None,
            "last verdict": lambda m: m.last_verdict.decision if m.last_verdict else None,
            "owner": lambda m: m.spec.get("owner"),
            "age": lambda m: ago(m.created),
        },
        output,
        empty="no models yet: modelyard apply -f model.yaml",
    )


@get.command("versions")
def get_versions(context: typer.Context, model: OneModel, output: Output = Format.table) -> None:
    """List a model's versions, newest first."""
    session: Session = context.obj
    show(session.connect().registry.versions(model), version_columns(), output, empty="no versions yet")


def version_columns() -> dict[str, Any]:
    """Return the columns of a table of versions."""
    return {
        "version": lambda v: v.number,
        "digest": lambda v: short(v.digest),
        "state": lambda v: _styled(v.state, _STATES),
        "verdict": lambda v: v.verdict.decision if v.verdict else None,
        "data until": lambda v: f"{v.data_until:%Y-%m-%d %H:%M}" if v.data_until else None,
        "run": lambda v: v.run,
        "age": lambda v: ago(v.registered),
    }


@get.command("runs")
def get_runs(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    output: Output = Format.table,
) -> None:
    """List training runs, newest first."""
    session: Session = context.obj
    show(session.connect().training.runs(model), run_columns(), output, prose=("why",), empty="no runs yet")


def run_columns() -> dict[str, Any]:
    """Return the columns of a table of runs."""
    return {
        "run": lambda r: r.id,
        "model": lambda r: r.model,
        "state": lambda r: _styled(r.state, _RUN_STATES),
        "stage": lambda r: r.stage,
        "trigger": lambda r: r.trigger.kind,
        "version": lambda r: short(r.version),
        "age": lambda r: ago(r.created),
        "why": lambda r: r.reason or r.trigger.reason,
    }


@get.command("datasets")
def get_datasets(context: typer.Context, output: Output = Format.table) -> None:
    """List dataset versions, newest first."""
    session: Session = context.obj
    show(
        session.connect().training.datasets(),
        {
            "digest": lambda d: short(d.digest),
            "name": lambda d: d.name,
            "rows": lambda d: d.rows,
            "columns": lambda d: ", ".join(column.name for column in d.columns),
            "bytes": lambda d: d.size_bytes,
            "age": lambda d: ago(d.created),
        },
        output,
        prose=("columns",),
        empty="no datasets yet",
    )


@get.command("episodes")
def get_episodes(context: typer.Context, model: OneModel, output: Output = Format.table) -> None:
    """List a model's drift episodes, newest first, each with what was decided about it."""
    session: Session = context.obj
    show(
        session.connect().drift.episodes(model),
        {
            "episode": lambda e: e.id,
            "opened": lambda e: f"{e.opened_at:%Y-%m-%d %H:%M}",
            "rows": lambda e: f"{e.window_first_row}-{e.opened_row}",
            "features": lambda e: ", ".join(e.features),
            "severity": lambda e: severity(e.severity),
            "windows": lambda e: e.windows,
            "decision": lambda e: e.decision.decision if e.decision else None,
            "why": lambda e: e.decision.reason if e.decision else None,
            "run": lambda e: e.decision.run if e.decision else None,
            "closed": lambda e: e.closed_by or ("by time" if e.closed_at else "open"),
        },
        output,
        prose=("features", "why"),
        empty="no episodes: nothing has drifted since the champion began",
    )


@get.command("events")
def get_events(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    output: Output = Format.table,
) -> None:
    """List the ledger: every fact that was decided, oldest first, and whether its chain of hashes is intact."""
    session: Session = context.obj
    registry = session.connect().registry
    entries: list[LedgerEntry] = []
    page = registry.ledger(model)
    intact = page.intact
    while True:
        entries += page.items
        if page.next_cursor is None:
            break
        page = registry.ledger(model, cursor=page.next_cursor)
        intact = intact and page.intact
    if output is Format.json:
        print_json({"intact": intact, "items": entries})
        return
    show(
        entries,
        {
            "seq": lambda e: e.seq,
            "at": lambda e: f"{e.at:%Y-%m-%d %H:%M:%S}",
            "who": lambda e: e.actor,
            "what": lambda e: e.kind,
            "model": lambda e: e.model,
            "about": lambda e: short(e.subject),
            "why": _why,
        },
        output,
        prose=("why",),
        empty="nothing was decided yet",
    )
    if entries:
        OUT.print("[green]the chain is intact[/green]" if intact else "[red]THE CHAIN IS BROKEN[/red]")


def _why(entry: LedgerEntry) -> str:
    verdict = entry.body.get("verdict") or {}
    judged = f"{verdict.get('decision')}: {verdict.get('reason')}" if verdict else ""
    return str(entry.body.get("reason") or judged)
