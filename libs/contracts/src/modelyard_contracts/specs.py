"""The identity of a policy: a digest over the parts of a manifest that decide what a run learns.

Fields that hold their default are left out: a field that a later release adds moves no digest, else an upgrade
would train every model anew. In return a default never changes within a version of the manifest.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel

from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.refs import Digest

__all__ = ["spec_digest", "training_digest"]


def spec_digest(spec: ManagedModelSpec) -> Digest:
    """Return the digest of the whole policy."""
    return Digest(hashlib.sha256(canonical_json(_written(spec))).hexdigest())


def training_digest(spec: ManagedModelSpec) -> Digest:
    """Return the digest of what a run learns from and how: a spec that changes elsewhere trains nothing anew."""
    parts = {
        "task": spec.task,
        "data": _written(spec.data),
        "train": _written(spec.train, {"recipe", "learn_from", "split", "seed"}),
    }
    return Digest(hashlib.sha256(canonical_json(parts)).hexdigest())


def _written(part: BaseModel, include: set[str] | None = None) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=include)
