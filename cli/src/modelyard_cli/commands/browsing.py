"""Looking: get models, versions, runs, datasets, episodes, events; describe a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from modelyard_common.errors import ModelyardError, NotFound
from modelyard_contracts.registry_v1 import LedgerEntry, ModelView, VersionSummary
from rich.text import Text

from modelyard_cli.output import OUT, Format, ago, print_json, short, show, show_one
from modelyard_cli.session import Session

__all__ = ["add_to"]

Output = Annotated[Format, typer.Option("--output", "-o", help="table or json.")]
OneModel = Annotated[str, typer.Argument(help="The model's name.")]

get = typer.Typer(no_args_is_help=True, help="List things: models, versions, runs, datasets, episodes, events.")
_STATES = {"champion": "green", "candidate": "yellow", "aborted": "red", "refused": "red"}
_SEVERITIES = {"critical": "red", "high": "red", "low": "yellow"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(get, name="get", rich_help_panel="Look")
    app.command(rich_help_panel="Look")(describe)


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
    show(session.connect().registry.versions(model), _version_columns(), output, empty="no versions yet")


def _version_columns() -> dict[str, Any]:
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
    colours = {"succeeded": "green", "failed": "red", "timed_out": "red", "running": "yellow"}
    show(
        session.connect().training.runs(model),
        {
            "run": lambda r: r.id,
            "model": lambda r: r.model,
            "state": lambda r: _styled(r.state, colours),
            "stage": lambda r: r.stage,
            "trigger": lambda r: r.trigger.kind,
            "version": lambda r: short(r.version),
            "why": lambda r: r.reason or r.trigger.reason,
            "age": lambda r: ago(r.created),
        },
        output,
        empty="no runs yet",
    )


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
            "severity": lambda e: _styled(e.severity, _SEVERITIES),
            "windows": lambda e: e.windows,
            "decision": lambda e: e.decision.decision if e.decision else None,
            "why": lambda e: e.decision.reason if e.decision else None,
            "run": lambda e: e.decision.run if e.decision else None,
        },
        output,
        empty="no episodes",
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
            "about": lambda e: short(e.subject) if e.subject.startswith("sha256:") else e.subject,
            "why": lambda e: e.body.get("reason") or "",
        },
        output,
        empty="nothing was decided yet",
    )
    if entries:
        OUT.print("[green]the chain is intact[/green]" if intact else "[red]THE CHAIN IS BROKEN[/red]")


def describe(context: typer.Context, model: OneModel, output: Output = Format.table) -> None:
    """Show everything about a model: policy, champion and why, rollout, contenders, drift, last runs."""
    session: Session = context.obj
    platform = session.connect()
    view = platform.registry.model(model)
    versions = platform.registry.versions(model)
    drift = None
    try:
        drift = platform.drift.status(model)
    except NotFound:
        pass
    except ModelyardError as exc:
        OUT.print(f"[yellow]drift cannot be asked: {exc}[/yellow]", soft_wrap=True)
    if output is Format.json:
        print_json({"model": view, "versions": versions, "drift": drift})
        return
    show_one(view, _model_lines(view), output)
    if drift is not None:
        OUT.print("\n[bold]Drift[/bold]")
        performance = ", ".join(f"{p.metric} {p.value:.4f} on {p.rows} rows" for p in drift.performance)
        show_one(
            drift,
            {
                "severity": _styled(drift.severity, _SEVERITIES),
                "requests": drift.requests,
                "labels": f"{drift.labels} ({drift.labels_waiting} waiting, {drift.labels_missing} missing)",
                "watermark": f"{drift.watermark:%Y-%m-%d %H:%M}" if drift.watermark else None,
                "last window": performance or (drift.last_window.state if drift.last_window else None),
                "open episodes": "; ".join(", ".join(e.features) for e in drift.open_episodes),
                "held back by": drift.note,
            },
            output,
        )
    OUT.print("\n[bold]Versions[/bold]")
    show(versions[:10], _version_columns(), output, empty="none yet")


def _model_lines(view: ModelView) -> dict[str, Any]:
    def named(version: VersionSummary | None) -> str | None:
        return f"version {version.number} ({short(version.digest)})" if version else None

    rollout = view.rollout
    verdict = view.last_verdict
    return {
        "name": view.name,
        "description": view.spec.get("description"),
        "owner": view.spec.get("owner"),
        "task": view.spec.get("task"),
        "generation": view.generation,
        "champion": named(view.champion),
        "candidate": named(view.candidate),
        "contenders": ", ".join(str(version.number) for version in view.contenders),
        "last verdict": f"{verdict.decision}: {verdict.reason}" if verdict else None,
        "rollout": f"{rollout.state}{', waits for ' + rollout.waiting_for if rollout.waiting_for else ''}"
        if rollout
        else None,
        "routing": f"revision {view.routing_revision}",
    }
