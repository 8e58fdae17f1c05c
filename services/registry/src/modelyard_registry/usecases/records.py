"""What the registry remembers, as the use cases see it: values, free of tables and of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.registry_v1 import Verdict, VersionState

__all__ = ["MirrorTask", "Model", "Promotion", "Reign", "Report", "Version"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its policy."""

    name: str
    generation: int
    spec: ManagedModelSpec
    written: Mapping[str, Any]
    """The spec as it was written: camelCase, without defaults that nobody set."""
    spec_digest: str
    training_digest: str
    created: datetime
    updated: datetime
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """A verified bundle under governance."""

    model: str
    number: int
    digest: str
    state: VersionState
    run: str
    registered: datetime
    manifest: BundleManifest
    mlflow_run_id: str
    artifact_path: str
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    mlflow_version: str | None = None
    """Its number in MLflow once it is mirrored; equal to ``number`` unless somebody else wrote there."""
    mirrored_state: str = ""
    """The state that MLflow shows."""

    @property
    def name(self) -> str:
        """How people call it."""
        return f"version {self.number}"

    @property
    def data_until(self) -> datetime | None:
        """The newest event time that it learned from."""
        return self.manifest.lineage.data_until


@dataclass(frozen=True, slots=True)
class Reign:
    """A time as champion; the newest one is the present."""

    seq: int
    digest: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion that somebody asked for, or that waits for approval."""

    id: str
    model: str
    version: str
    state: Literal["pending", "approved", "rejected"]
    reason: str
    created: datetime
    kind: Literal["new", "predecessor", "manual"] = "manual"
    rollout: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The last word of one inference instance about one model."""

    model: str
    instance: str
    digest: str
    revision: int
    outcome: Literal["serving", "refused", "tripped"]
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class MirrorTask:
    """A model whose mirror is behind."""

    model: str
    wanted: int
    """Rises with every change; the task is done when the mirror has seen this one."""
    attempts: int = 0
    error: str = field(default="")
