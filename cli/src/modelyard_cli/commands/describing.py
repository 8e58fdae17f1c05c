"""Describing: everything that is known about one model on one page, the reasons included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from modelyard_client import Modelyard
from modelyard_common.errors import ModelyardError, NotFound
from modelyard_contracts.drift_v1 import DriftStatus
from modelyard_contracts.managed_model_v1alpha1 import GateRule, ManagedModelSpec, Trigger
from modelyard_contracts.registry_v1 import ModelView, PromotionView, RolloutStepView, VersionSummary, VersionView
from rich.markup import escape

from modelyard_cli.commands.browsing import OneModel, Output, run_columns, version_columns
from modelyard_cli.output import ERR, OUT, Format, ago, print_json, severity, short, show, show_one

__all__ = ["add_to", "drift_lines"]

T = TypeVar("T")
_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(describe)


def describe(context: typer.Context, model: OneModel, output: Output = Format.table) -> None:
    """Show everything about a model: policy, champion and why, rollout, drift, versions, last runs.

    Examples:
      modelyard describe diabetes
      modelyard describe diabetes -o json | jq .model.champion
    """
    platform: Modelyard = context.obj.connect()
    view = platform.registry.model(model)
    versions = platform.registry.versions(model)
    waiting = platform.registry.waiting(model)
    champion = platform.registry.version(model, view.champion.digest) if view.champion else None
    drift = _unless_away("drift", lambda: platform.drift.status(model))
    runs = _unless_away("training", lambda: platform.training.runs(model))
    if output is Format.json:
        known = {"model": view, "champion": champion, "versions": versions, "waiting": waiting}
        print_json({**known, "drift": drift, "runs": runs})
        return
    show_one(view, _model_lines(view), output)
    _section("Policy", _policy_lines(ManagedModelSpec.model_validate(view.spec)))
    if waiting:
        _section("Waits for approval", _waiting_lines(waiting, versions))
    if champion is not None:
        _section("Champion", _champion_lines(view, champion))
    if view.rollout is not None:
        _section("Latest rollout", _rollout_lines(view))
    if drift is not None:
        _section("Drift", drift_lines(drift))
    OUT.print("\n[bold]Versions[/bold]")
    show(versions[:_SHOWN], version_columns(), output, empty="none yet")
    _more(len(versions), f"modelyard get versions {model}")
    if runs is not None:
        OUT.print("\n[bold]Runs[/bold]")
        show(runs[:_SHOWN], run_columns(), output, prose=("why",), empty="none yet")
        _more(len(runs), f"modelyard get runs {model}")


def _unless_away(service: str, ask: Callable[[], T]) -> T | None:
    """Return an answer, or None with a word on standard error: one service that is away must not hide the others."""
    try:
        return ask()
    except NotFound:
        return None  # it has not heard of the model yet
    except ModelyardError as exc:
        ERR.print(f"[yellow]{service} cannot be asked: {escape(exc.message)}[/yellow]", soft_wrap=True)
        return None


def _section(title: str, lines: dict[str, Any]) -> None:
    OUT.print(f"\n[bold]{title}[/bold]")
    show_one(None, {name: value for name, value in lines.items() if value not in (None, "")}, Format.table)


def _more(count: int, command: str) -> None:
    if count > _SHOWN:
        OUT.print(f"[dim]{count - _SHOWN} more: {command}[/dim]")


def _named(version: VersionSummary | None) -> str | None:
    return f"version {version.number} ({short(version.digest)})" if version else None


def _model_lines(view: ModelView) -> dict[str, Any]:
    verdict = view.last_verdict
    return {
        "name": view.name,
        "description": view.spec.get("description"),
        "owner": view.spec.get("owner"),
        "state": "deleted" if view.deleted else "paused" if view.spec.get("paused") else "active",
        "champion": _named(view.champion),
        "candidate": _named(view.candidate),
        "last verdict": f"{verdict.decision}: {verdict.reason}" if verdict else None,
        "applied": f"generation {view.generation}, {ago(view.updated)} ago",
    }


def _waiting_lines(waiting: list[PromotionView], versions: list[VersionSummary]) -> dict[str, Any]:
    numbers = {version.digest: version.number for version in versions}
    return {
        f"version {numbers.get(one.version, short(one.version))}": f"for {ago(one.created)}: {one.reason}"
        for one in waiting
    }


def _policy_lines(spec: ManagedModelSpec) -> dict[str, Any]:
    data, train, rollout = spec.data, spec.train, spec.rollout
    params = ", ".join(f"{name}={value}" for name, value in train.recipe.params.items())
    steps = [
        f"shadow of {step.min_requests} requests"
        if step.shadow
        else f"{step.weight} % for {step.min_requests} requests"
        for step in rollout.steps
    ]
    return {
        "task": spec.task,
        "learns": f"{data.target} from {data.source.uri[:32]}{'…' if len(data.source.uri) > 32 else ''}",
        "recipe": f"{train.recipe.estimator}({params})",
        "retrains": "; ".join(_when(trigger) for trigger in train.when) or "when asked to",
        "gates": "; ".join(_gate(rule) for rule in spec.gate) or "none: every version passes",
        "rollout": f"{rollout.promote}; {', then '.join(steps) or 'at once'}",
    }


def _when(trigger: Trigger) -> str:
    if trigger.cron is not None:
        return f"at {trigger.cron} UTC"
    if trigger.drift is not None:
        drift = trigger.drift
        return f"on {drift.at_least} drift (cooldown {drift.cooldown}, at most {drift.max_per_week} a week)"
    performance = trigger.performance
    assert performance is not None  # noqa: S101  # exactly one of the three is set
    if performance.below is not None:
        return f"when {performance.metric} is below {performance.below:g}"
    return f"when {performance.metric} is above {performance.above:g}"


def _gate(rule: GateRule) -> str:
    on = f" on at least {rule.on.fresh.min_rows} fresh rows" if rule.on else ""
    if rule.against:
        return f"{rule.metric} better than the champion's by {rule.improve_by or 0:g}{on}"
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", rule.min), ("<=", rule.max)) if bound is not None]
    return f"{rule.metric} {' and '.join(bounds)}{on}"


def _champion_lines(view: ModelView, champion: VersionView) -> dict[str, Any]:
    lineage = champion.manifest.lineage
    whole = next((part for part in champion.manifest.metrics if part.slice == "all"), None)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in whole.metrics.items()) if whole else ""
    verdict = champion.verdict
    return {
        "version": f"{champion.number} ({champion.digest})",
        "made by": f"{champion.run} with {lineage.estimator}, {ago(champion.registered)} ago",
        "learned from": f"{lineage.rows} rows" if lineage.rows else None,
        "data until": f"{lineage.data_until:%Y-%m-%d %H:%M}" if lineage.data_until else None,
        "metrics": f"{metrics} on {whole.rows} rows" if whole else None,
        "verdict": f"{verdict.decision}: {verdict.reason}" if verdict else "promoted by hand",
        "served by": ", ".join(champion.manifest.runtimes),
        "contenders": ", ".join(f"version {version.number}" for version in view.contenders),
    }


def _rollout_lines(view: ModelView) -> dict[str, Any]:
    rollout = view.rollout
    assert rollout is not None  # noqa: S101  # the caller has looked
    lines = {
        "of": f"{short(rollout.candidate)} ({rollout.kind}), {ago(rollout.started)} ago",
        "state": rollout.state,
        "waits for": rollout.waiting_for,
        "why": rollout.reason,
    }
    return lines | {f"step {step.index + 1}": _step(step) for step in rollout.steps}


def _step(step: RolloutStepView) -> str:
    what = "shadow" if step.shadow else f"{step.weight} %"
    return f"{what}: {step.outcome}{', ' + step.reason if step.reason else ''}"


def drift_lines(drift: DriftStatus) -> dict[str, Any]:
    """Return where drift stands, for people."""
    window = drift.open_window
    labels = [f"{drift.labels} came"]
    labels += [f"{drift.labels_waiting} wait for their prediction"] if drift.labels_waiting else []
    labels += [f"{drift.labels_missing} are late"] if drift.labels_missing else []
    behind = drift.ingest_seq - drift.processed_seq
    return {
        "severity": severity(drift.severity),
        "measured against": short(drift.reference) if drift.reference else "nothing yet",
        "predictions": f"{drift.requests} rows{f', {behind} records not yet looked at' if behind else ''}",
        "labels": ", ".join(labels),
        "event time": f"{drift.watermark:%Y-%m-%d %H:%M} UTC" if drift.watermark else None,
        "open window": f"{window.id}, {window.rows} rows so far" if window else None,
        "performance": "; ".join(
            f"version {short(p.version)}: {p.metric} {p.value:.4g} ({p.low:.4g} to {p.high:.4g}) on {p.rows} rows"
            for p in drift.performance
        ),
        "open episodes": "; ".join(f"{e.severity}: {', '.join(e.features)}" for e in drift.open_episodes),
        "commands": f"{drift.pending_commands} wait for training" if drift.pending_commands else None,
        "held back by": drift.note,
    }
