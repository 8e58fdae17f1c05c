"""Training: start a run and watch it, read its log."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from modelyard_client import TrainingClient
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunTrigger, RunView, SubmitRunRequest
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from modelyard_cli.commands.browsing import OneModel, Output
from modelyard_cli.exits import NothingPromoted, RunEndedBadly
from modelyard_cli.output import ERR, OUT, Format, print_json, short
from modelyard_cli.session import Session

__all__ = ["add_to", "wait_for_run"]

_POLL_S = 0.3
OneRun = Annotated[str, typer.Argument(help="A run's id; `modelyard get runs` lists them.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (train, cancel, logs):
        app.command(rich_help_panel="Train")(command)


def train(
    context: typer.Context,
    model: OneModel,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the verdict; exit code 6: failed, 7: nothing was promoted.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Kept with the run.")] = "",
    output: Output = Format.table,
) -> None:
    """Start a training run, on the history and on all labels that have come.

    With [bold]--wait[/bold] the exit code tells what became of it: 0, a version was promoted (its rollout has begun) or
    waits for approval; 7, the gates kept what serves; 6, the run failed, was cancelled or took too long.

    Examples:
      modelyard train diabetes
      modelyard train diabetes --wait -m "new sensors"     exit code 6 if it fails
    """
    session: Session = context.obj
    platform = session.connect()
    run = platform.training.submit(SubmitRunRequest(model=model, trigger=RunTrigger(kind="manual", reason=reason)))
    if wait:
        run = wait_for_run(platform.training, run, quiet=output is Format.json)
    verdict = platform.registry.version(model, run.version).verdict if wait and run.version else None
    if output is Format.json:
        print_json({**run.model_dump(mode="json"), "verdict": verdict})
    else:
        made = f", version {short(run.version)}" if run.version else ""
        OUT.print(f"run {run.id}: {run.state}{made}")
        if verdict:
            OUT.print(f"  {verdict.decision}: {verdict.reason}", soft_wrap=True, markup=False)
    if wait and run.state != "succeeded":
        raise RunEndedBadly(f"run {run.id} {run.state}: {run.reason or 'no reason given'}")
    if verdict and verdict.decision in ("keep", "insufficient"):
        raise NothingPromoted(f"run {run.id} made version {short(run.version)}, and the gates did not let it pass")


def wait_for_run(training: TrainingClient, run: RunView, *, quiet: bool = False) -> RunView:
    """Wait for the end of a run, with a progress bar, and return it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[stage]}"), TimeElapsedColumn())
    with Progress(*columns, console=ERR, disable=quiet, transient=True) as progress:
        task = progress.add_task(run.model, total=1.0, stage="waits")
        while run.state not in TERMINAL_STATES:
            time.sleep(_POLL_S)
            run = training.run(run.id)
            progress.update(task, completed=run.progress, stage=run.stage or run.state)
    return run


def cancel(context: typer.Context, run: OneRun, output: Output = Format.table) -> None:
    """End a run.

    Examples:
      modelyard cancel run-1a21211e419-3aefa20b
    """
    session: Session = context.obj
    view = session.connect().training.cancel(run)
    if output is Format.json:
        print_json(view)
        return
    OUT.print(f"run {view.id}: {view.state}")


def logs(
    context: typer.Context,
    run: OneRun,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """Print what a run wrote: JSON, one event a line.

    Examples:
      modelyard logs run-1a21211e419-3aefa20b --follow
      modelyard logs run-1a21211e419-3aefa20b | jq -r .message
    """
    session: Session = context.obj
    training = session.connect().training
    offset = 0
    while True:
        state = training.run(run).state
        text = training.logs(run, offset)
        typer.echo(text, nl=False)
        offset += len(text.encode())
        if text:
            continue
        if not follow or state in TERMINAL_STATES:
            return
        time.sleep(_POLL_S)
