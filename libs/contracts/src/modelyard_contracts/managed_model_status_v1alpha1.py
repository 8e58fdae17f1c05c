"""The status of a ``ManagedModel`` object on a cluster: what ``kubectl get mm`` and ``kubectl describe`` show.

Only the operator writes it. It is bounded whatever the model's history is: everything longer is at the registry, at
training and at drift, under the names that stand here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from modelyard_contracts.base import UtcTime, View
from modelyard_contracts.refs import DigestText

__all__ = [
    "CONDITIONS",
    "CandidateStatus",
    "Condition",
    "DriftState",
    "ManagedModelStatus",
    "RunStatus",
    "ServedVersion",
]

CONDITIONS: dict[str, str] = {
    "Ready": "The registry has this policy and inference serves the champion.",
    "Accepted": "The registry has taken this generation of the policy.",
    "Trained": "A run has made a version of this model; False when the newest run failed.",
    "Serving": "Inference answers with the champion.",
    "Progressing": "A training run or a rollout is under way.",
    "Drifting": "A drift episode is open.",
    "Stalled": "Nothing will change until a person acts.",
}
"""Every type of condition with what its being True means."""

_MOST_FEATURES = 10
Sentence = Annotated[str, Field(max_length=1024)]


class _Camel(View):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class Condition(_Camel):
    """One thing that is true of the model, false, or not known, with the reason and a sentence."""

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=64)]
    """One word in CamelCase, for programs."""
    message: Sentence = ""
    """A sentence, for people."""
    observed_generation: int = 0
    """The generation of the object that this was found for."""
    last_transition_time: UtcTime
    """When ``status`` last changed."""


class ServedVersion(_Camel):
    """A governed version of the model."""

    number: int
    digest: DigestText


class CandidateStatus(ServedVersion):
    """The version that is being rolled out."""

    weight: int = Field(0, ge=0, le=100)
    """Percent of the requests that it answers."""
    shadow: bool = False
    """It gets copies, and its answers go only to the log."""


class RunStatus(_Camel):
    """The newest training run."""

    id: str
    state: Literal["pending", "starting", "running", "succeeded", "failed", "cancelled", "timed_out"]
    stage: str = ""
    attempts: int = 0


class DriftState(_Camel):
    """What drift has found."""

    severity: Literal["none", "low", "high", "critical", "unknown"]
    features: Annotated[tuple[str, ...], Field(max_length=_MOST_FEATURES)] = ()
    """The drifted features of the open episodes, the first ten."""


class ManagedModelStatus(_Camel):
    """Where a model stands. What a service that is away last said stays, and its condition says Unknown."""

    observed_generation: int = 0
    """The generation of ``spec`` that everything here is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()
    champion: ServedVersion | None = None
    candidate: CandidateStatus | None = None
    step: str = ""
    """Where the rollout is: ``2/3 25%``."""
    run: RunStatus | None = None
    drift: DriftState | None = None
    next: Sentence = ""
    """What happens next, or what is waited for, in words."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of a type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)
