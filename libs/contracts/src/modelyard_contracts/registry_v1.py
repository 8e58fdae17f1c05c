"""The registry's API: models, versions, verdicts, rollouts, routing, the ledger."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modelyard_contracts.base import Request, UtcTime, View
from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.refs import DigestText, ModelName

__all__ = [
    "Consequence",
    "FieldChange",
    "LedgerEntry",
    "LedgerView",
    "ModelView",
    "PlanView",
    "PromotionRequest",
    "PromotionState",
    "PromotionView",
    "RegisterVersionRequest",
    "RollbackRequest",
    "RolloutCommand",
    "RolloutStepView",
    "RolloutView",
    "Route",
    "RoutingTable",
    "RuleVerdict",
    "RuntimeReport",
    "Verdict",
    "VersionSummary",
    "VersionView",
    "WatchEvent",
]


class RegisterVersionRequest(Request):
    """Offer a bundle for governance. Idempotent by digest.

    The registry reads every file of the bundle from MLflow, hashes it, compares it with the manifest, and only
    then answers 201. A digest that is known already answers 200 with the version as it is.
    """

    digest: DigestText
    mlflow_run_id: str
    artifact_path: str = "bundle"
    run: str
    """The training run, or ``external`` for a bundle that was brought."""
    evaluation: Evaluation | None = None


class RuleVerdict(View):
    """How one gate rule came out."""

    rule: str
    """The rule as a sentence: ``accuracy >= 0.6 on test``."""
    outcome: Literal["passed", "failed", "insufficient"]
    reason: str
    observed: float | None = None
    against: float | None = None


class Verdict(View):
    """What the gates decided about an evaluation, and why."""

    decision: Literal["promote", "promote_predecessor", "keep", "insufficient", "hold"]
    """``hold``: the gates passed, a person has to approve (``rollout.promote: manual``)."""
    reason: str
    chosen: DigestText | None = None
    """The version that is rolled out, when one is."""
    rules: tuple[RuleVerdict, ...] = ()


VersionState = Literal["registered", "refused", "candidate", "champion", "retired", "aborted"]


class VersionSummary(View):
    """One governed version in a list."""

    model: ModelName
    number: int
    """1, 2, 3… in the order of registration; equals the version in MLflow."""
    digest: DigestText
    state: VersionState
    run: str
    registered: UtcTime
    data_until: UtcTime | None = None
    verdict: Verdict | None = None


class VersionView(VersionSummary):
    """One governed version with everything that is known of it."""

    manifest: BundleManifest
    evaluation: Evaluation | None = None
    mlflow_run_id: str
    mirrored: bool = False
    """MLflow shows this version too."""


class Route(View):
    """One version in a routing table."""

    number: int
    digest: DigestText


class CandidateRoute(Route):
    """The version that is being rolled out."""

    weight: int = Field(0, ge=0, le=100)
    """Percent of requests that it answers."""
    shadow: bool = False
    """It gets copies, and its answers go only to the log."""


class RoutingTable(View):
    """Who answers what. A new revision for every change; the ETag is the revision."""

    model: ModelName
    revision: int
    champion: Route | None = None
    candidate: CandidateRoute | None = None
    log_payloads: float = 1.0
    redact: tuple[str, ...] = ()
    """Features that are not written down."""
    batch_rows: int | None = None
    """Rows of several requests that the model gets at once; None leaves it to the server."""
    replay: bool = False
    deleted: bool = False
    traceparent: str | None = None
    """The trace in which it was put into force (W3C Trace Context)."""


class RolloutStepView(View):
    """One step of a rollout as it went."""

    index: int
    shadow: bool
    weight: int
    min_requests: int
    revision: int | None = None
    """The routing revision in which this step was live."""
    started: UtcTime | None = None
    ended: UtcTime | None = None
    outcome: Literal["pending", "running", "passed", "aborted", "skipped"] = "pending"
    reason: str = ""
    evidence: dict[str, Any] = {}


class RolloutView(View):
    """A rollout: the road from accepted to champion."""

    id: str
    model: ModelName
    candidate: DigestText
    previous: DigestText | None = None
    state: Literal["running", "paused", "completed", "aborted"]
    kind: Literal["first", "new", "predecessor", "rollback", "manual"]
    reason: str = ""
    started: UtcTime
    ended: UtcTime | None = None
    waiting_for: str = ""
    """What the current step still needs, in words."""
    steps: tuple[RolloutStepView, ...] = ()


class ModelView(View):
    """A model: its policy and where it stands."""

    name: ModelName
    generation: int
    spec: dict[str, Any]
    """The manifest's ``spec`` as it is written (camelCase)."""
    spec_digest: DigestText
    training_digest: DigestText
    created: UtcTime
    updated: UtcTime
    deleted: bool = False
    champion: VersionSummary | None = None
    candidate: VersionSummary | None = None
    contenders: tuple[VersionSummary, ...] = ()
    """Predecessors in contention: former champions, newest first, bounded by ``rollout.contenders``."""
    rollout: RolloutView | None = None
    """The latest rollout."""
    last_verdict: Verdict | None = None
    routing_revision: int = 0


class FieldChange(View):
    """One field of the manifest that an apply would change."""

    path: str
    """As errors name it: ``spec.gate[0].min``."""
    op: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None
    part: str
    """The part of the loop that the field is for: ``training``, ``gate``, ``routing`` …"""


class Consequence(View):
    """What one part of the loop would do about it."""

    part: str
    when: Literal["now", "later", "never"]
    """``later``: at its next occasion (a run, a judgement, a window). ``never``: nothing, and the sentence says why."""
    sentence: str


class PlanView(View):
    """What applying a manifest would do: ``POST /v1/models/{m}/plan``, which changes nothing."""

    model: ModelName
    action: Literal["create", "revive", "update", "none"]
    """``revive``: the model was deleted, and its history is taken up again."""
    generation: int
    """Of the model after the apply."""
    spec_digest: DigestText
    training_digest: DigestText
    changes: tuple[FieldChange, ...] = ()
    """Empty for a model that there is not yet."""
    consequences: tuple[Consequence, ...] = ()


class PromotionRequest(Request):
    """Ask for a version to become champion by hand."""

    version: DigestText | int
    reason: str = ""
    direct: bool = False
    """Skip the steps of the rollout."""


PromotionState = Literal["pending", "approved", "rejected"]


class PromotionView(View):
    """A promotion asked for: pending (waits for a person) or decided."""

    id: str
    model: ModelName
    version: DigestText
    state: PromotionState
    reason: str = ""
    created: UtcTime
    rollout: str | None = None


class RollbackRequest(Request):
    """Return to the previous champion at once, or to the one named."""

    to: DigestText | int | None = None
    reason: str = ""


class RolloutCommand(Request):
    """Why a rollout is paused, resumed or aborted."""

    reason: str = ""


class RuntimeReport(Request):
    """Inference tells the registry that it serves a version, or why it will not."""

    instance: str
    digest: DigestText
    revision: int
    outcome: Literal["serving", "refused", "tripped"]
    """``tripped``: the candidate failed several times in a row and gets no more requests here."""
    reason: str = ""


class LedgerEntry(View):
    """One fact that was decided. ``hash`` is SHA-256 over the canonical JSON of all other fields."""

    seq: int
    at: UtcTime
    actor: str
    kind: str
    """``model.applied``, ``version.registered``, ``version.judged``, ``rollout.started``, ``rollout.step``,
    ``rollout.completed``, ``rollout.aborted``, ``champion.changed``, ``runtime.refused`` …"""
    model: ModelName
    subject: str
    body: dict[str, Any]
    previous: str
    hash: str


class LedgerView(View):
    """A page of the ledger, and whether the whole chain verifies."""

    items: tuple[LedgerEntry, ...]
    next_cursor: str | None = None
    intact: bool


class WatchEvent(View):
    """One event of ``GET /v1/watch`` (server-sent events): the id is ``seq``, the data is this."""

    seq: int
    kind: Literal["model", "routing"]
    model: ModelName
    routing: RoutingTable | None = None
    """Set for ``routing``. For ``model`` the reader gets the model again."""
