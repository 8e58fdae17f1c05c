"""What the operator's tests share: objects as the API server has them, and views as the services give them."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard_contracts.drift_v1 import DriftStatus
from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_contracts.registry_v1 import ModelView
from modelyard_contracts.specs import spec_digest, training_digest
from modelyard_contracts.training_v1 import RunView
from modelyard_operator.domain.observed import FINALIZER, Loaded, ManagedObject, Observed, Seen
from modelyard_operator.domain.reconcile import Action, Apply, Delete, SetFinalizers, WriteStatus

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DIGEST = "sha256:" + "d" * 64
ROOT = Path(__file__).parents[3]
_refusals: Callable[[Any], list[str]] = runpy.run_path(str(ROOT / "libs/contracts/tests/test_crd.py"))["refusals"]


def spec(**changes: Any) -> dict[str, Any]:
    """Return a small valid spec, with top-level fields replaced."""
    return {
        "task": "classification",
        "data": {"source": {"uri": f"dataset://{DIGEST}"}, "target": "up"},
        "train": {"recipe": {"estimator": "decision_tree"}},
    } | changes


def document(name: str = "m", **changes: Any) -> dict[str, Any]:
    """Return an object as people apply it."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ManagedModel",
        "metadata": {"name": name},
        "spec": spec(**changes),
    }


def admit(plural: str, found: dict[str, Any]) -> str | None:
    """Say what the CustomResourceDefinition finds wrong with an object, its status included."""
    return "; ".join(_refusals(found)) or None if plural == "managedmodels" else None


def managed(**changes: Any) -> ManagedObject:
    values: dict[str, Any] = {
        "name": "m",
        "generation": 1,
        "version": "1",
        "manifest": parse_manifest(document()),
        "finalizers": (FINALIZER,),
    }
    return ManagedObject(**(values | changes))


def version(number: int = 1, state: str = "champion") -> dict[str, Any]:
    return {
        "model": "m",
        "number": number,
        "digest": DIGEST,
        "state": state,
        "run": "run-1",
        "registered": NOW.isoformat(),
    }


def model(changed: dict[str, Any] | None = None, **view: Any) -> ModelView:
    """Return a model as the registry shows it.

    Args:
        changed: fields of its spec that are not those of ``spec()``.
        view: fields of the view.
    """
    parsed = parse_manifest(document(**(changed or {}))).spec
    values = {
        "name": "m",
        "generation": 1,
        "spec": spec(**(changed or {})),
        "spec_digest": str(spec_digest(parsed)),
        "training_digest": str(training_digest(parsed)),
        "created": NOW,
        "updated": NOW,
    }
    return ModelView.model_validate(values | view)


def rollout(state: str = "running", **changes: Any) -> dict[str, Any]:
    steps = [
        {"index": 0, "shadow": True, "weight": 0, "min_requests": 100, "outcome": "passed"},
        {"index": 1, "shadow": False, "weight": 25, "min_requests": 50, "outcome": "running"},
    ]
    return {
        "id": "ro-1",
        "model": "m",
        "candidate": DIGEST,
        "state": state,
        "kind": "new",
        "started": NOW,
        "waiting_for": "30 more responses of the candidate",
        "steps": steps,
    } | changes


def run(state: str = "running", **changes: Any) -> RunView:
    values = {
        "id": "run-1",
        "model": "m",
        "state": state,
        "trigger": {"kind": "spec"},
        "training_digest": DIGEST,
        "created": NOW,
        "stage": "fit",
        "attempts": 1,
    }
    return RunView.model_validate(values | changes)


def drift(severity: str = "none", features: tuple[str, ...] = (), **changes: Any) -> DriftStatus:
    episode = {
        "id": "e",
        "model": "m",
        "reference": DIGEST,
        "features": features,
        "severity": "high",
        "opened_window": "w",
        "opened_row": 9,
        "window_first_row": 0,
        "opened_at": NOW,
    }
    values = {
        "model": "m",
        "requests": 10,
        "ingest_seq": 1,
        "processed_seq": 1,
        "label_seq": 0,
        "labels": 0,
        "labels_waiting": 0,
        "labels_missing": 0,
        "severity": severity,
        "open_episodes": [episode] if features else [],
    }
    return DriftStatus.model_validate(values | changes)


def observed(**changes: Any) -> Observed:
    """Return a model that is trained and served, with parts replaced."""
    values: dict[str, Any] = {
        "object": managed(),
        "registry": Seen(model(champion=version())),
        "run": Seen(run("succeeded", version=DIGEST)),
        "drift": Seen(drift()),
        "loaded": Seen(Loaded(frozenset({1}))),
    }
    return Observed(**(values | changes))


def performed(seen: Observed, action: Action) -> Observed | None:
    """Return what is seen after an action went well; None when the object is gone with it."""
    match action:
        case SetFinalizers(finalizers):
            if seen.object.deleting and not finalizers:
                return None
            return replace(seen, object=replace(seen.object, finalizers=finalizers))
        case Apply(manifest):
            digest = str(spec_digest(manifest.spec))
            before = seen.registry.value if isinstance(seen.registry, Seen) else None
            return replace(seen, registry=Seen((before or model()).model_copy(update={"spec_digest": digest})))
        case Delete():
            return replace(seen, registry=Seen(None))
        case WriteStatus(status):
            # Through the wire, as it comes back from the API server.
            wire = status.model_dump(mode="json", by_alias=True, exclude_none=True)
            return replace(seen, object=replace(seen.object, status=ManagedModelStatus.model_validate(wire)))
