"""What changes a model: apply, delete, register, promote, approve, reject, rollback; what holds or ends a rollout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from modelyard_client import Modelyard
from modelyard_common.errors import Conflict, Invalid, ModelyardError, NotFound
from modelyard_common.problems import error_from
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.problem import Problem
from modelyard_contracts.registry_v1 import (
    PromotionRequest,
    PromotionView,
    RollbackRequest,
    RolloutView,
    VersionSummary,
)
from pydantic import ValidationError

from modelyard_cli.commands.browsing import OneModel, Output
from modelyard_cli.manifests import read_manifests, with_known_data, with_uploaded_data
from modelyard_cli.output import ERR, OUT, Format, print_json, short
from modelyard_cli.plans import show_farewell, show_plan
from modelyard_cli.session import Session

__all__ = ["add_to", "version_ref"]

File = Annotated[Path, typer.Option("--file", "-f", help="A YAML file with manifests, or a folder of such files.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Kept in the ledger.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (apply, validate, delete, register, promote, approve, reject, rollback, pause, resume, abort):
        app.command(rich_help_panel="Change")(command)


def apply(
    context: typer.Context,
    file: File,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would happen, and change and upload nothing.")
    ] = False,
    output: Output = Format.table,
) -> None:
    """Make manifests the policy of their models; applying the same again changes nothing.

    A relative path in [bold]spec.data.source.uri[/bold] is uploaded and named by the digest over its rows.
    Applying starts training by itself when data or recipe are new: [bold]modelyard get runs[/bold] shows it.

    Examples:
      modelyard apply -f examples/diabetes/model.yaml
      modelyard apply -f model.yaml --dry-run     what would happen
      modelyard validate -f model.yaml && modelyard apply -f model.yaml
      modelyard apply -f model.yaml -o json | jq .generation
    """
    session: Session = context.obj
    manifests = read_manifests(file)
    platform = session.connect()
    if dry_run:
        _plan(platform, manifests, output)
        return
    views = []
    for manifest, folder in manifests:
        uploaded, sentence = with_uploaded_data(manifest, folder, platform.training)
        _about_data(sentence)
        views.append(platform.registry.apply(uploaded))
    if output is Format.json:
        print_json(views[0] if len(views) == 1 else views)
        return
    for view in views:
        OUT.print(f"model/{view.name} applied, generation {view.generation}")


def _plan(platform: Modelyard, manifests: list[tuple[ManagedModel, Path]], output: Format) -> None:
    plans = []
    for manifest, folder in manifests:
        known, sentence = with_known_data(manifest, folder, platform.registry)
        _about_data(sentence)
        plans.append(platform.registry.plan(known))
    if output is Format.json:
        print_json(plans[0] if len(plans) == 1 else plans)
        return
    for plan in plans:
        show_plan(plan)


def _about_data(sentence: str) -> None:
    if sentence:
        ERR.print(f"[dim]data: {sentence}[/dim]", soft_wrap=True)


def validate(file: File) -> None:
    """Check manifests without a platform: every wrong field is named, with what was found and what is allowed.

    Examples:
      modelyard validate -f model.yaml
      modelyard validate -f deploy/argocd/envs/dev/models
    """
    for manifest, _ in read_manifests(file):
        OUT.print(f"model/{manifest.metadata.name} is valid")


def delete(
    context: typer.Context,
    model: OneModel,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would become of it, and change nothing.")
    ] = False,
) -> None:
    """Delete a model: it is no longer trained or served. What becomes of its versions is its deletionPolicy.

    Examples:
      modelyard delete diabetes
      modelyard delete diabetes --yes        without a question, for scripts
      modelyard delete diabetes --dry-run    what would become of its versions
    """
    session: Session = context.obj
    registry = session.connect().registry
    if dry_run:
        show_farewell(registry.model(model), versions=len(registry.versions(model)))
        return
    if not yes:
        if not sys.stdin.isatty():
            raise Invalid(f"nobody is here to ask whether {model} shall be deleted; say --yes")
        typer.confirm(f"Delete {model}?", abort=True)
    registry.delete(model)
    OUT.print(f"model/{model} deleted")


def register(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A .skops file, an MLflow model folder, or a server.json.")],
    model: Annotated[str, typer.Option(help="The model whose version this becomes; apply its manifest first.")],
    data: Annotated[Path, typer.Option(help="Sample rows with the target, as Parquet or CSV.")],
    pyfunc: Annotated[
        bool,
        typer.Option("--pyfunc", help="The folder holds a model of any flavour; its code runs here."),
    ] = False,
    server_token_file: Annotated[
        Path | None, typer.Option(help="A file with the bearer token that the server of a server.json wants.")
    ] = None,
    output: Output = Format.table,
) -> None:
    """Bring a model that was trained elsewhere: it is packed, verified, judged and rolled out like any other.

    The sample gives the signature, the probe set and the baseline that drift is measured against; use rows that
    the model has not learned from. Pickles are refused. A server.json names a server that runs the model
    (docs/runtimes.md). What the gates do not let pass can be promoted by hand.

    Examples:
      modelyard register model.skops --model diabetes --data sample.csv
      modelyard register mlruns/m-3f --model diabetes --data sample.parquet
      modelyard register xgb --pyfunc --model diabetes --data sample.csv
      modelyard promote diabetes 3 -m "measured by hand"
    """
    session: Session = context.obj
    for needed in (path, data, server_token_file):
        if needed is not None and not needed.exists():
            raise NotFound(f"there is no {needed}")
    if server_token_file is not None and path.suffix != ".json":
        raise Invalid(f"--server-token-file is for the server of a server.json, and {path.name} is a model")
    answer = _bring(session, model, path, data, pyfunc=pyfunc, server_token_file=server_token_file)
    if output is Format.json:
        print_json(answer)
        return
    OUT.print(f"version {answer.number} ({short(answer.digest)}) of {model}: {answer.state}")
    if answer.verdict:
        OUT.print(f"  {answer.verdict.decision}: {answer.verdict.reason}", soft_wrap=True, markup=False)


def _bring(
    session: Session, model: str, path: Path, data: Path, *, pyfunc: bool, server_token_file: Path | None
) -> VersionSummary:
    """Pack and register in a process of its own: that needs scikit-learn and MLflow's library, which are heavy."""
    command = [sys.executable, "-m", "modelyard_trainer.bring", str(path.absolute()), "--model", model]
    command += ["--data", str(data.absolute()), "--registry-url", session.url("registry")]
    command += ["--mlflow-url", session.url("mlflow")]
    if pyfunc:
        command += ["--pyfunc"]
    if server_token_file is not None:
        command += ["--server-token-file", str(server_token_file.absolute())]
    if session.token_file is not None:
        command += ["--token-file", str(session.token_file.absolute())]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        if done.returncode == 0:
            return VersionSummary.model_validate_json(done.stdout)
        problem = Problem.model_validate_json(done.stdout)
    except ValidationError as exc:
        raise ModelyardError(f"packing ended unexpectedly: {_last_line(done.stderr)}") from exc
    raise error_from(problem)


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def version_ref(text: str) -> int | str:
    """Return a version as it was named: a number, or a digest."""
    if text.isdecimal():
        return int(text)
    if text.startswith("sha256:"):
        return text
    raise Invalid(f"{text!r} is neither the number of a version nor a digest (sha256:…)")


def promote(
    context: typer.Context,
    model: OneModel,
    version: Annotated[str, typer.Argument(help="A number, or a digest.")],
    direct: Annotated[bool, typer.Option("--direct", help="Skip the steps of the rollout.")] = False,
    reason: Reason = "",
    output: Output = Format.table,
) -> None:
    """Make a version champion, by the steps of the manifest's rollout. The gates are not asked; the ledger is told.

    Examples:
      modelyard promote electricity 4 -m "needed for the audit"
      modelyard promote electricity 4 --direct     without shadow or canary
    """
    session: Session = context.obj
    request = PromotionRequest(version=version_ref(version), reason=reason, direct=direct)
    _tell_promotion(session.connect().registry.promote(model, request), output)


Waiting = Annotated[str, typer.Argument(help="A number, or a digest; needed only where several wait.")]


def approve(context: typer.Context, model: OneModel, version: Waiting = "", output: Output = Format.table) -> None:
    """Let a version that waits for a person become champion ([bold]rollout.promote: manual[/bold]): its rollout begins.

    Examples:
      modelyard describe credit     what waits, and what its verdict was
      modelyard approve credit
      modelyard approve credit 7
    """
    platform = context.obj.connect()
    _tell_promotion(platform.registry.approve(_waiting(platform, model, version).id), output)


def reject(context: typer.Context, model: OneModel, version: Waiting = "", output: Output = Format.table) -> None:
    """Decide that a version that waits for a person does not become champion.

    Examples:
      modelyard reject credit
    """
    platform = context.obj.connect()
    _tell_promotion(platform.registry.reject(_waiting(platform, model, version).id), output)


def _waiting(platform: Modelyard, model: str, version: str) -> PromotionView:
    """Return the one promotion that waits, of the version named if one is.

    Raises:
        NotFound: none does.
        Conflict: several do, and none is named.
    """
    numbers = {one.digest: one.number for one in platform.registry.versions(model)}
    waiting = platform.registry.waiting(model)
    if version:
        wanted = version_ref(version)
        named = [one for one in waiting if wanted in (one.version, numbers.get(one.version))]
        if not named:
            raise NotFound(f"version {version} of model {model!r} does not wait for approval")
        return named[0]
    if not waiting:
        raise NotFound(f"no version of model {model!r} waits for approval")
    if len(waiting) > 1:
        names = ", ".join(str(numbers.get(one.version, one.version)) for one in waiting)
        raise Conflict(f"several versions of model {model!r} wait for approval: {names}; name one")
    return waiting[0]


def _tell_promotion(view: PromotionView, output: Format) -> None:
    if output is Format.json:
        print_json(view)
        return
    OUT.print(f"promotion {view.id} of {short(view.version)}: {view.state}")


def rollback(
    context: typer.Context,
    model: OneModel,
    to: Annotated[str, typer.Option(help="A number or digest; the previous champion when left out.")] = "",
    reason: Reason = "",
    output: Output = Format.table,
) -> None:
    """Return to an earlier champion at once.

    Examples:
      modelyard rollback electricity -m "complaints from the south"
      modelyard rollback electricity --to 2
    """
    session: Session = context.obj
    request = RollbackRequest(to=version_ref(to) if to else None, reason=reason)
    view = session.connect().registry.rollback(model, request)
    if output is Format.json:
        print_json(view)
        return
    OUT.print(f"rolled back to {short(view.candidate)}")


def pause(context: typer.Context, model: OneModel, reason: Reason = "", output: Output = Format.table) -> None:
    """Hold the running rollout where it is: the candidate keeps its share, no step is taken.

    Examples:
      modelyard pause electricity -m "looking into it"
    """
    session: Session = context.obj
    _tell_rollout(session.connect().registry.pause(model, reason), output)


def resume(context: typer.Context, model: OneModel, reason: Reason = "", output: Output = Format.table) -> None:
    """Let a paused rollout go on.

    Examples:
      modelyard resume electricity
    """
    session: Session = context.obj
    _tell_rollout(session.connect().registry.resume(model, reason), output)


def abort(context: typer.Context, model: OneModel, reason: Reason = "", output: Output = Format.table) -> None:
    """End the running rollout; the champion stays.

    Examples:
      modelyard abort electricity -m "wrong data"
    """
    session: Session = context.obj
    _tell_rollout(session.connect().registry.abort(model, reason), output)


def _tell_rollout(view: RolloutView, output: Format) -> None:
    if output is Format.json:
        print_json(view)
        return
    waits = f", waits for {view.waiting_for}" if view.waiting_for else ""
    OUT.print(f"rollout {view.id} of {short(view.candidate)}: {view.state}{waits}", soft_wrap=True, markup=False)
