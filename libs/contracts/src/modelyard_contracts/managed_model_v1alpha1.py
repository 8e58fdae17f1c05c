"""The manifest: one document runs a model's whole life. The CRD and the JSON schema are made from these classes.

Field names are camelCase on the wire, as Kubernetes has them, and snake_case in Python. A field that the
platform does not build yet is known here by name and refused with a clear message (``UNBUILT``), never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from modelyard_contracts.base import Wire
from modelyard_contracts.cron import Cron
from modelyard_contracts.durations import Duration, duration_s
from modelyard_contracts.field_errors import field_errors
from modelyard_contracts.metrics_v1 import METRICS_BY_TASK
from modelyard_contracts.problem import FieldError
from modelyard_contracts.refs import DigestText, ModelName

__all__ = [
    "API_VERSION",
    "KIND",
    "AbortRule",
    "Checks",
    "Data",
    "Feature",
    "FreshRule",
    "GateRule",
    "LearnFrom",
    "ManagedModel",
    "ManagedModelSpec",
    "ManifestError",
    "Metadata",
    "Monitor",
    "Recipe",
    "Rollout",
    "RolloutStep",
    "Serve",
    "Split",
    "Train",
    "Trigger",
    "parse_manifest",
]

API_VERSION: Literal["modelyard.dev/v1alpha1"] = "modelyard.dev/v1alpha1"
KIND: Literal["ManagedModel"] = "ManagedModel"

Task = Literal["classification", "regression", "anomaly"]
Metric = Literal["accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss", "rmse", "mae", "r2"]
Severity = Literal["low", "high", "critical"]
MemorySize = Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)?$")]
CpuAmount = Annotated[str, Field(pattern=r"^([0-9]+m|[0-9]+(\.[0-9]+)?)$")]
ColumnName = Annotated[str, Field(max_length=256)]


class _Part(Wire):
    """A part of the manifest: camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class Metadata(_Part):
    """Which object this is; the Kubernetes fields that we do not read are kept out of the digest."""

    model_config = ConfigDict(extra="ignore")

    name: ModelName
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Source(_Part):
    """Where rows come from."""

    uri: str = Field(max_length=2048)
    """``dataset://sha256:…``; the CLI uploads a relative path and rewrites it to that."""


class Feature(_Part):
    """What a column must be like. Whatever is left out is inferred from the training data and shown in status."""

    type: Literal["number", "integer", "category", "boolean"] | None = None
    required: bool = True
    """False: the value may be missing (null) in data and requests."""
    min: float | None = None
    max: float | None = None
    categories: tuple[str | int, ...] | None = Field(None, max_length=10_000)


class Checks(_Part):
    """What stops a training run before it learns from broken data."""

    max_missing: float = Field(0.05, ge=0, le=1)
    """The largest share of missing values that a required feature may have."""


class Data(_Part):
    """The data of a model: source, roles of columns, checks."""

    source: Source
    target: str = Field(min_length=1, max_length=256)
    positive_class: str | int | None = None
    timestamp: ColumnName | None = None
    """The column with the event time; never a feature."""
    keys: tuple[ColumnName, ...] = Field((), max_length=64)
    features: dict[str, Feature] = Field({}, max_length=2000)
    checks: Checks = Checks()


class Recipe(_Part):
    """Which estimator to fit, with which parameters."""

    estimator: Literal[
        "logistic_regression",
        "linear_regression",
        "ridge",
        "random_forest",
        "hist_gradient_boosting",
        "gradient_boosting",
        "decision_tree",
        "isolation_forest",
    ]
    params: dict[str, str | int | float | bool | None] = Field({}, max_length=100)


class Recent(_Part):
    """How many of the newest rows to learn from."""

    rows: int = Field(ge=10, le=10_000_000)


class LearnFrom(_Part):
    """Which rows a retraining run learns from."""

    history: bool = True
    """The dataset in ``data.source``."""
    feedback: bool = True
    """The predictions whose labels have come."""
    recent: Recent | None = None
    """Only the newest rows of these, in order of event time; all when left out."""


class Split(_Part):
    """How the rows that a first run learns from and those that it is tested on are told apart."""

    by: Literal["time", "random"] = "random"
    test: float = Field(0.2, gt=0, lt=1)


class Resources(_Part):
    """What a training job may use."""

    cpu: CpuAmount = "1"
    memory: MemorySize = "2Gi"


class DriftTrigger(_Part):
    """Retrain when an episode reaches a severity, within limits on event time."""

    at_least: Severity = "high"
    cooldown: Duration = "1d"
    max_per_week: int = Field(7, ge=1, le=1000)


class PerformanceTrigger(_Part):
    """Retrain when a metric over a window, with its labels, is beyond a floor (or, for errors, a ceiling)."""

    metric: Metric
    below: float | None = None
    above: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> PerformanceTrigger:
        if (self.below is None) == (self.above is None):
            raise ValueError("give exactly one of below and above")
        return self


class Trigger(_Part):
    """One reason to train again: exactly one of its fields is set."""

    cron: Annotated[str, Field(max_length=100, json_schema_extra={"pattern": r"^\s*(\S+\s+){4}\S+\s*$"})] | None = None
    """Five fields, UTC: minute hour day-of-month month day-of-week."""
    drift: DriftTrigger | None = None
    performance: PerformanceTrigger | None = None

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None:
            Cron.parse(value)
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Trigger:
        if sum(part is not None for part in (self.cron, self.drift, self.performance)) != 1:
            raise ValueError("give exactly one of cron, drift and performance")
        return self


class Train(_Part):
    """How and when a model is trained."""

    recipe: Recipe
    learn_from: LearnFrom = LearnFrom()
    split: Split = Split()
    seed: int = Field(0, ge=0, le=2**31 - 1)
    timeout: Duration = "30m"
    resources: Resources = Resources()
    when: tuple[Trigger, ...] = Field((), max_length=32)


class FreshRows(_Part):
    """The newest labelled rows, set aside for judging; nobody that is judged on them has learned from them."""

    rows: int = Field(1000, ge=1)
    min_rows: int = Field(500, ge=1)
    """Fewer than this is insufficient: nothing is promoted on such evidence."""

    @model_validator(mode="after")
    def _ordered(self) -> FreshRows:
        if self.min_rows > self.rows:
            raise ValueError("minRows must not be larger than rows")
        return self


class FreshRule(_Part):
    """Which rows a gate is judged on."""

    fresh: FreshRows


class GateRule(_Part):
    """One condition of promotion: an absolute bound, or a comparison against the champion on the same rows."""

    metric: Metric
    min: float | None = None
    max: float | None = None
    against: Literal["champion"] | None = None
    improve_by: float | None = Field(None, ge=0)
    on: FreshRule | None = None
    """Left out: the run's test rows (fresh rows when it has them)."""

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, rule: Any) -> Any:
        """Take ``on`` back from YAML 1.1, which reads the bare key as true (kubectl: as ``"true"``)."""
        if isinstance(rule, dict) and "on" not in rule:
            return {"on" if key is True or key == "true" else key: value for key, value in rule.items()}
        return rule

    @model_validator(mode="after")
    def _absolute_or_relative(self) -> GateRule:
        absolute = self.min is not None or self.max is not None
        if absolute == (self.against is not None):
            raise ValueError("give either min or max, or against: champion with improveBy")
        if self.improve_by is not None and self.against is None:
            raise ValueError("improveBy needs against: champion")
        return self


class RolloutStep(_Part):
    """One step of a canary: shadow copies only, or a share of the requests."""

    shadow: bool = False
    weight: int | None = Field(None, ge=1, le=100)
    """Percent of the requests that the candidate answers."""
    min_requests: int = Field(100, ge=1)
    """Responses of the candidate in this step before it may be judged."""
    for_: Duration | None = Field(None, alias="for")
    """At least this long, in wall time."""

    @model_validator(mode="after")
    def _one_kind(self) -> RolloutStep:
        if self.shadow == (self.weight is not None):
            raise ValueError("give either shadow: true or weight")
        return self


class AbortRule(_Part):
    """What ends a rollout and keeps the champion."""

    signal: Literal["errorRatio", "p50", "p99", "disagreement", "performance"]
    above: float | None = None
    below: float | None = None
    ratio: float | None = Field(None, gt=0)
    """The candidate's value over the champion's must not exceed this."""
    floor_ms: float = Field(0.0, ge=0)
    """Latencies under this never abort."""
    min_responses: int = Field(50, ge=1)
    """With fewer responses the signal is insufficient: wait."""

    @model_validator(mode="after")
    def _one_bound(self) -> AbortRule:
        if sum(bound is not None for bound in (self.above, self.below, self.ratio)) != 1:
            raise ValueError("give exactly one of above, below and ratio")
        return self


class Rollout(_Part):
    """How an accepted version becomes champion."""

    promote: Literal["automatic", "manual", "pinned"] = "automatic"
    version: DigestText | None = None
    steps: tuple[RolloutStep, ...] = Field((), max_length=32)
    abort_if: tuple[AbortRule, ...] = Field((), max_length=32)
    contenders: int = Field(3, ge=0, le=32)
    """How many predecessors stay in contention: old regimes come back."""

    @model_validator(mode="after")
    def _pinned_has_version(self) -> Rollout:
        if (self.promote == "pinned") != (self.version is not None):
            raise ValueError("promote: pinned and version go together")
        return self


class Replicas(_Part):
    """How many inference servers there are."""

    min: int = Field(1, ge=0, le=1000)
    max: int = Field(1, ge=1, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError("min must not be larger than max")
        return self


class Serve(_Part):
    """How a model is served."""

    replicas: Replicas = Replicas()
    log_payloads: float = Field(1.0, ge=0, le=1)
    """The share of requests whose features and prediction go to drift."""
    redact: tuple[ColumnName, ...] = Field((), max_length=500)
    """Features whose values are written down nowhere: neither on the server's disk, nor by drift, nor by a sink."""
    batch_rows: int | None = Field(None, ge=1, le=16_384)
    """Rows of several requests that the model gets at once; 1: requests are never laid together. Left out: as many as
    the server allows, which is also the most."""


class Window(_Part):
    """How much of the stream is judged at once: rows, or event time."""

    rows: int | None = Field(None, ge=50)
    for_: Duration | None = Field(None, alias="for")

    @model_validator(mode="after")
    def _one_kind(self) -> Window:
        if (self.rows is None) == (self.for_ is None):
            raise ValueError("give exactly one of rows and for")
        return self


class DriftThresholds(_Part):
    """What counts as drift."""

    psi: float = Field(0.2, gt=0)
    """Effect size: population stability index on the champion's frozen bins."""
    significance: float = Field(0.01, gt=0, lt=0.5)
    """The second key: the false discovery rate over all features of a window."""
    min_rows: int = Field(200, ge=50)
    """A window with fewer rows is insufficient, never 'no drift'."""


class PerformanceMetric(_Part):
    """Which metric is watched on labelled rows."""

    metric: Metric


class Monitor(_Part):
    """What is watched, over which windows."""

    window: Window = Window(rows=1000)
    drift: DriftThresholds = DriftThresholds()
    performance: PerformanceMetric | None = None
    label_delay: Duration = "1d"
    """How long labels may take, in event time, before they count as missing."""
    replay: bool = False
    """The stream carries event times of the past or the future; the clock is not asked."""


class ManagedModelSpec(_Part):
    """The policy of one model."""

    description: str = ""
    owner: str = ""
    paused: bool = False
    deletion_policy: Literal["retain", "delete"] = "retain"
    task: Task
    data: Data
    train: Train
    gate: tuple[GateRule, ...] = Field((), max_length=64)
    rollout: Rollout = Rollout()
    serve: Serve = Serve()
    monitor: Monitor = Monitor()

    @model_validator(mode="after")
    def _roles_do_not_overlap(self) -> ManagedModelSpec:
        roles = [self.data.target, *([self.data.timestamp] if self.data.timestamp else []), *self.data.keys]
        for name in roles:
            if name in self.data.features:
                raise ValueError(f"data.features.{name}: a target, timestamp or key is never a feature")
        if len(set(roles)) != len(roles):
            raise ValueError("data: target, timestamp and keys must be different columns")
        if self.train.split.by == "time" and self.data.timestamp is None:
            raise ValueError("train.split.by: time needs data.timestamp")
        return self

    @model_validator(mode="after")
    def _what_is_redacted_cannot_be_learned_from(self) -> ManagedModelSpec:
        if not self.serve.redact:
            return self
        for name in (self.data.target, self.data.timestamp, *self.data.keys):
            if name in self.serve.redact:
                raise ValueError(f"serve.redact: {name}: a target, timestamp or key is never logged")
        if self.train.learn_from.feedback or self.fresh is not None:
            raise ValueError(
                "serve.redact: rows whose features are not logged can be neither learned from nor judged on; "
                "set learnFrom.feedback to false and no gate's on.fresh"
            )
        return self

    @model_validator(mode="after")
    def _metrics_fit_the_task(self) -> ManagedModelSpec:
        named = [(f"gate[{index}].metric", rule.metric) for index, rule in enumerate(self.gate)]
        for index, trigger in enumerate(self.train.when):
            if trigger.performance is not None:
                named.append((f"train.when[{index}].performance.metric", trigger.performance.metric))
        if self.monitor.performance is not None:
            named.append(("monitor.performance.metric", self.monitor.performance.metric))
        known = METRICS_BY_TASK[self.task]
        for path, metric in named:
            if metric not in known:
                raise ValueError(f"{path}: found {metric!r}, allowed for {self.task}: {', '.join(known)}")
        return self

    @property
    def label_delay_s(self) -> float:
        """How long labels may take, in seconds of event time."""
        return duration_s(self.monitor.label_delay)

    @property
    def fresh(self) -> FreshRows | None:
        """The fresh rows that the gates ask for; the largest demand when several do."""
        demands = [rule.on.fresh for rule in self.gate if rule.on is not None]
        if not demands:
            return None
        return FreshRows(
            rows=max(demand.rows for demand in demands), min_rows=max(demand.min_rows for demand in demands)
        )


class ManagedModel(_Part):
    """The manifest."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["ManagedModel"] = KIND
    metadata: Metadata
    spec: ManagedModelSpec

    @model_validator(mode="before")
    @classmethod
    def _status_is_not_policy(cls, document: Any) -> Any:
        """Leave out ``status``: an object that was read from Kubernetes can be applied as it is."""
        if isinstance(document, dict) and "status" in document:
            return {key: value for key, value in document.items() if key != "status"}
        return document

    def to_wire(self) -> dict[str, Any]:
        """Return the manifest as it is written: camelCase, without defaults that nobody set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True) | {
            "apiVersion": self.api_version,
            "kind": self.kind,
        }


UNBUILT: dict[str, str] = {
    "spec.data.source.query": "reading from a database is not built yet; upload a file or use dataset://",
    "spec.train.recipe.code": "training from code:// is not built yet; use recipe.estimator",
    "spec.train.search": "hyper-parameter search is not built yet; set recipe.params",
    "spec.serve.explain": "there is nothing to turn on: every model answers POST /v1/models/<name>:explain",
    "spec.serve.runtime": "the choice of a runtime is not built yet; ONNX is used where parity held",
    "spec.monitor.segments": "monitoring by segment is not built yet",
}
"""Fields that the design has and this release does not, each with what to do instead."""


class ManifestError(ValueError):
    """The manifest has wrong fields; ``errors`` names each of them."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.path}: {error.message}" for error in errors))


def parse_manifest(document: object) -> ManagedModel:
    """Return the manifest that document (decoded YAML or JSON) is.

    Raises:
        ManifestError: with a path, what was found and what is allowed, for every wrong field at once.
    """
    try:
        return ManagedModel.model_validate(document)
    except ValidationError as exc:
        raise ManifestError(field_errors(exc.errors(), shape=ManagedModel, refused=UNBUILT)) from exc
