"""The status of an object, made of what is seen now and of what was written before.

What a service that is away last said stays; its condition says Unknown. ``observedGeneration`` moves only when what is
written is about that generation: the registry has the policy, or has refused it. Nothing in it changes by itself with
time, so that a model to which nothing happens is never written.
"""

from __future__ import annotations

from datetime import datetime

from modelyard_contracts.managed_model_status_v1alpha1 import (
    CandidateStatus,
    Condition,
    DriftState,
    ManagedModelStatus,
    RunStatus,
    ServedVersion,
)
from modelyard_contracts.registry_v1 import ModelView, RolloutStepView, VersionSummary

from modelyard_operator.domain.conditions import Finding, findings, is_active, run_words
from modelyard_operator.domain.observed import Away, Observed, known

__all__ = ["status_of"]

_MOST_FEATURES = 10
# Wider columns wrap in every terminal; the whole sentence is in the conditions.
_MOST_NEXT = 100
_NOT_ACCEPTED = {
    "Refused": "mend spec",
    "RegistryAway": "waits for the registry",
    "Applying": "is given to the registry",
}


def status_of(observed: Observed, now: datetime) -> ManagedModelStatus:
    """Return the status that the object should have."""
    before = observed.object.status
    decided = observed.applied or bool(observed.fault)
    generation = observed.object.generation if decided else before.observed_generation
    found = findings(observed)
    status = before.model_copy(
        update={
            "observed_generation": generation,
            "conditions": tuple(
                _condition(kind, finding, before.condition(kind), generation, now) for kind, finding in found.items()
            ),
        }
    )
    if not isinstance(observed.registry, Away):
        status = status.model_copy(update=_versions(observed.registry.value))
    if not isinstance(observed.run, Away):
        run = observed.run.value
        shown = RunStatus(id=run.id, state=run.state, stage=run.stage, attempts=run.attempts) if run else None
        status = status.model_copy(update={"run": shown})
    if not isinstance(observed.drift, Away):
        status = status.model_copy(update={"drift": _drift(observed)})
    return status.model_copy(update={"next": _column(_next(observed, found))})


def _column(text: str) -> str:
    """Return words that fit into a column: one line, cut where it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_NEXT else line[: _MOST_NEXT - 1] + "…"


def _condition(kind: str, found: Finding, before: Condition | None, generation: int, now: datetime) -> Condition:
    same = before is not None and before.status == found.status
    # Kubernetes keeps times by the second.
    since = before.last_transition_time if before is not None and same else now.replace(microsecond=0)
    return Condition(
        type=kind,
        status=found.status,
        reason=found.reason,
        message=found.message,
        observed_generation=generation,
        last_transition_time=since,
    )


def _versions(view: ModelView | None) -> dict[str, object]:
    if view is None:
        return {"champion": None, "candidate": None, "step": ""}
    step, place = _running_step(view)
    champion = ServedVersion(number=view.champion.number, digest=view.champion.digest) if view.champion else None
    return {"champion": champion, "candidate": _candidate(view.candidate, step), "step": place}


def _candidate(version: VersionSummary | None, step: RolloutStepView | None) -> CandidateStatus | None:
    if version is None:
        return None
    weight, shadow = (step.weight, step.shadow) if step is not None else (0, False)
    return CandidateStatus(number=version.number, digest=version.digest, weight=weight, shadow=shadow)


def _running_step(view: ModelView) -> tuple[RolloutStepView | None, str]:
    """Return the step that a rollout is in, and where that is: ``2/3 25%``."""
    if view.rollout is None or view.rollout.state not in ("running", "paused"):
        return None, ""
    for step in view.rollout.steps:
        if step.outcome == "running":
            share = "shadow" if step.shadow else f"{step.weight}%"
            paused = " paused" if view.rollout.state == "paused" else ""
            return step, f"{step.index + 1}/{len(view.rollout.steps)} {share}{paused}"
    return None, ""


def _drift(observed: Observed) -> DriftState | None:
    drift = known(observed.drift)
    if drift is None:
        return None
    features = sorted({feature for episode in drift.open_episodes for feature in episode.features})
    return DriftState(severity=drift.severity, features=tuple(features[:_MOST_FEATURES]))


def _next(observed: Observed, found: dict[str, Finding]) -> str:
    """Return what happens next, the most pressing thing first."""
    if observed.object.deleting:
        why = f": {observed.registry.reason}" if isinstance(observed.registry, Away) else ""
        return f"waits for the registry to delete the model{why}"
    if found["Accepted"].status != "True":
        words = _NOT_ACCEPTED[found["Accepted"].reason]
        return f"{words}: {found['Accepted'].message}"
    view, run, drift = known(observed.registry), known(observed.run), known(observed.drift)
    if found["Progressing"].reason in ("RollingOut", "RolloutPaused", "Paused"):
        return found["Progressing"].message
    if view is not None and view.last_verdict is not None and view.last_verdict.decision == "hold":
        return f"waits for approval: {view.last_verdict.reason}"
    if run is not None and is_active(run):
        return run_words(run)
    if found["Stalled"].status == "True":
        return found["Stalled"].message
    if run is None and found["Trained"].reason == "NoRun":
        return "waits for the first run"
    if found["Serving"].status != "True":
        return found["Serving"].message
    return "drift asks for a training run" if drift is not None and drift.pending_commands else ""
