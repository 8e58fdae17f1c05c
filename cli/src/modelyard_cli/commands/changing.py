"""What changes a model: apply, validate, delete, register, promote, rollback, pause, resume."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.registry_v1 import PromotionRequest, RollbackRequest

from modelyard_cli.manifests import read_manifests, with_uploaded_data
from modelyard_cli.output import ERR, OUT, Format, print_json, short
from modelyard_cli.session import Session

__all__ = ["add_to", "version_ref"]

File = Annotated[Path, typer.Option("--file", "-f", help="A YAML file with one or more manifests.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="table or json.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Kept in the ledger.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (apply, validate, delete, register, promote, rollback, pause, resume):
        app.command(rich_help_panel="Change")(command)


def apply(context: typer.Context, file: File, output: Output = Format.table) -> None:
    """Make manifests the policy of their models; applying the same again changes nothing.

    A relative path in [bold]spec.data.source.uri[/bold] is uploaded and named by the digest over its rows.
    """
    session: Session = context.obj
    manifests = read_manifests(file)
    platform = session.connect()
    views = []
    for manifest, _ in manifests:
        uploaded, sentence = with_uploaded_data(manifest, file.absolute().parent, platform.training)
        if sentence:
            ERR.print(f"[dim]data: {sentence}[/dim]", soft_wrap=True)
        views.append(platform.registry.apply(uploaded))
    if output is Format.json:
        print_json(views[0] if len(views) == 1 else views)
        return
    for view in views:
        OUT.print(f"model/{view.name} applied, generation {view.generation}")


def validate(file: File) -> None:
    """Check manifests without a platform: every wrong field is named, with what was found and what is allowed."""
    for manifest, _ in read_manifests(file):
        OUT.print(f"model/{manifest.metadata.name} is valid")


def delete(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model: it is no longer trained or served. What becomes of its versions is its deletionPolicy."""
    session: Session = context.obj
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {model}?", abort=True)
    session.connect().registry.delete(model)
    OUT.print(f"model/{model} deleted")


def register(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="An MLflow model folder (skops format), or a .skops file.")],
    model: Annotated[str, typer.Option(help="The model whose version this becomes; apply its manifest first.")],
    data: Annotated[Path, typer.Option(help="Sample rows with the target, as Parquet or CSV.")],
    output: Output = Format.table,
) -> None:
    """Bring a model that was trained elsewhere: it is packed, verified, judged and rolled out like any other.

    The sample gives the signature, the probe set and the baseline that drift is measured against; use rows that
    the model has not learned from. Pickles are refused.
    """
    session: Session = context.obj
    for needed in (path, data):
        if not needed.exists():
            raise NotFound(f"there is no {needed}")
    view = session.connect().registry.model(model)
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        request = {
            "model": model,
            "spec": view.spec,
            "path": str(path.absolute()),
            "data": str(data.absolute()),
            "registry_url": session.url("registry"),
            "mlflow_url": session.layout.url("mlflow"),
            "token_file": str(session.token_file) if session.token_file else None,
            "work_dir": folder,
        }
        file = Path(folder) / "bring.json"
        file.write_text(json.dumps(request))
        # Packing needs scikit-learn and MLflow's library, which this command does not import.
        done = subprocess.run(
            [sys.executable, "-m", "modelyard_trainer.bring", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Invalid(lines[-1] if lines else "the model could not be packed")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if output is Format.json:
        print_json(answer)
        return
    OUT.print(f"version {answer['number']} ({short(answer['digest'])}) of {model}: {answer['state']}")
    if answer.get("verdict"):
        OUT.print(f"  {answer['verdict']['decision']}: {answer['verdict']['reason']}", soft_wrap=True)


def version_ref(text: str) -> int | str:
    """Return a version as it was named: a number, or a digest."""
    if text.isdecimal():
        return int(text)
    if text.startswith("sha256:"):
        return text
    raise Invalid(f"{text!r} is neither the number of a version nor a digest (sha256:…)")


def promote(
    context: typer.Context,
    model: str,
    version: Annotated[str, typer.Argument(help="A number, or a digest.")],
    direct: Annotated[bool, typer.Option("--direct", help="Skip the steps of the rollout.")] = False,
    reason: Reason = "",
    output: Output = Format.table,
) -> None:
    """Make a version champion, by the steps of the manifest's rollout. The gates are not asked; the ledger is told."""
    session: Session = context.obj
    request = PromotionRequest(version=version_ref(version), reason=reason, direct=direct)
    view = session.connect().registry.promote(model, request)
    if output is Format.json:
        print_json(view)
        return
    OUT.print(f"promotion {view.id} of {short(view.version)}: {view.state}")


def rollback(
    context: typer.Context,
    model: str,
    to: Annotated[str, typer.Option(help="A number or digest; the previous champion when left out.")] = "",
    reason: Reason = "",
    output: Output = Format.table,
) -> None:
    """Return to an earlier champion at once."""
    session: Session = context.obj
    request = RollbackRequest(to=version_ref(to) if to else None, reason=reason)
    view = session.connect().registry.rollback(model, request)
    if output is Format.json:
        print_json(view)
        return
    OUT.print(f"rolled back to {short(view.candidate)}")


def pause(context: typer.Context, model: str, reason: Reason = "") -> None:
    """Hold the running rollout where it is."""
    session: Session = context.obj
    view = session.connect().registry.pause(model, reason)
    OUT.print(f"rollout {view.id}: {view.state}")


def resume(context: typer.Context, model: str, reason: Reason = "") -> None:
    """Let a paused rollout go on."""
    session: Session = context.obj
    view = session.connect().registry.resume(model, reason)
    OUT.print(f"rollout {view.id}: {view.state}")
