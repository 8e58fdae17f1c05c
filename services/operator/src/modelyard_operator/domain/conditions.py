"""The conditions of a model, one function each: what is seen becomes a status, a reason and a sentence.

Unknown means that nobody can say now; it is never used for "not yet". A candidate that was refused or drift that was
found is the platform at work: neither makes a model unready or stalled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelyard_contracts.registry_v1 import ModelView
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunView

from modelyard_operator.domain.observed import Away, Observed, known

__all__ = ["Finding", "findings", "is_active", "run_words"]

_MOST_CHARACTERS = 800


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition before it has times."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def findings(observed: Observed) -> dict[str, Finding]:
    """Return the conditions of a model by type, in the order in which they are shown."""
    accepted = _accepted(observed)
    serving = _serving(observed)
    return {
        "Ready": _ready(observed, accepted, serving),
        "Accepted": accepted,
        "Trained": _trained(observed),
        "Serving": serving,
        "Progressing": _progressing(observed),
        "Drifting": _drifting(observed),
        "Stalled": _stalled(observed),
    }


def is_active(run: RunView | None) -> bool:
    """Return whether a run waits or is at work."""
    return run is not None and run.state not in TERMINAL_STATES


def run_words(run: RunView) -> str:
    """Return where a run stands, as a sentence that changes only when something happens."""
    where = f"run {run.id} is {run.state}" + (f" ({run.stage})" if run.stage and is_active(run) else "")
    return _cut(f"{where}: {run.reason}" if run.reason else where)


def _ready(observed: Observed, accepted: Finding, serving: Finding) -> Finding:
    if observed.object.deleting:
        return Finding("False", "Deleting", "the model is being deleted")
    for part in (accepted, serving):
        if part.status == "False":
            return part
    for part in (accepted, serving):
        if part.status == "Unknown":
            return part
    return Finding("True", "Serving", serving.message)


def _accepted(observed: Observed) -> Finding:
    if observed.fault:
        return Finding("False", "Refused", _cut(observed.fault))
    if isinstance(observed.registry, Away):
        return Finding("Unknown", "RegistryAway", _cut(observed.registry.reason))
    if not observed.applied:
        return Finding("Unknown", "Applying", "the registry is being given this policy")
    return Finding("True", "Applied", "the registry has this policy")


def _trained(observed: Observed) -> Finding:
    if isinstance(observed.run, Away):
        return Finding("Unknown", "TrainingAway", _cut(observed.run.reason))
    run, champion = observed.run.value, observed.champion
    if run is None:
        if champion is not None:
            return Finding("True", "Brought", f"version {champion} was registered without a run here")
        return Finding("False", "NoRun", "no run has begun yet")
    if is_active(run):
        return Finding("False" if champion is None else "True", "Training", run_words(run))
    if run.state == "succeeded":
        return Finding("True", "RunSucceeded", f"run {run.id} made version {(run.version or '')[:19]}")
    reason = {"failed": "RunFailed", "cancelled": "RunCancelled", "timed_out": "RunTimedOut"}[run.state]
    return Finding("False", reason, run_words(run))


def _serving(observed: Observed) -> Finding:
    if isinstance(observed.registry, Away):
        return Finding("Unknown", "RegistryAway", _cut(observed.registry.reason))
    champion = observed.champion
    if champion is None:
        return Finding("False", "NoChampion", _cut(_why_no_champion(observed.registry.value)))
    if isinstance(observed.loaded, Away):
        return Finding("Unknown", "InferenceAway", _cut(observed.loaded.reason))
    loaded = observed.loaded.value
    if loaded is not None and champion in loaded.numbers:
        return Finding("True", "Serving", f"inference answers with version {champion}")
    why = f": {loaded.reason}" if loaded is not None and loaded.reason else ""
    return Finding("False", "NotLoaded", _cut(f"inference has not loaded version {champion}{why}"))


def _why_no_champion(view: ModelView | None) -> str:
    verdict = view.last_verdict if view is not None else None
    if verdict is None:
        return "there is no version that could be served yet"
    return f"no version is served: {verdict.decision}: {verdict.reason}"


def _progressing(observed: Observed) -> Finding:
    view, run = known(observed.registry), known(observed.run)
    rollout = view.rollout if view is not None else None
    if rollout is not None and rollout.state == "running":
        return Finding("True", "RollingOut", _cut(rollout.waiting_for or f"rollout {rollout.id} is under way"))
    if run is not None and is_active(run):
        return Finding("True", "Training", run_words(run))
    if rollout is not None and rollout.state == "paused":
        return Finding("False", "RolloutPaused", f"rollout {rollout.id} is paused: resume or abort it")
    if isinstance(observed.registry, Away):
        return Finding("Unknown", "RegistryAway", _cut(observed.registry.reason))
    if isinstance(observed.run, Away):
        return Finding("Unknown", "TrainingAway", _cut(observed.run.reason))
    if observed.object.manifest is not None and observed.object.manifest.spec.paused:
        return Finding("False", "Paused", "spec.paused is true: nothing is trained or rolled out")
    return Finding("False", "Idle", "no run and no rollout is under way")


def _drifting(observed: Observed) -> Finding:
    if isinstance(observed.drift, Away):
        return Finding("Unknown", "DriftAway", _cut(observed.drift.reason))
    drift = observed.drift.value
    if drift is None:
        return Finding("Unknown", "NothingSeen", "drift has seen no prediction of this model")
    if drift.open_episodes:
        features = sorted({feature for episode in drift.open_episodes for feature in episode.features})
        what = ", ".join(features) or "its performance"
        return Finding("True", "EpisodeOpen", _cut(f"{drift.severity} drift of {what}"))
    if drift.severity == "unknown":
        return Finding("Unknown", "NoWindow", "no window has been scored yet")
    return Finding("False", "NoEpisode", "no drift episode is open")


def _stalled(observed: Observed) -> Finding:
    if observed.fault:
        return Finding("True", "Refused", _cut(f"mend spec: {observed.fault}"))
    run, silent = known(observed.run), isinstance(observed.registry, Away)
    if run is not None and run.state in ("failed", "timed_out") and observed.champion is None and not silent:
        return Finding("True", "RunFailed", run_words(run))
    return Finding("False", "NotStalled", "nothing waits for spec to be mended")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
