"""The identity of a policy: a digest over the parts of a manifest that decide what a run learns."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.refs import Digest

__all__ = ["canonical_json", "spec_digest", "training_digest"]


def canonical_json(value: Any) -> bytes:
    """Return value as JSON with sorted keys and no white space: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def spec_digest(spec: ManagedModelSpec) -> Digest:
    """Return the digest of the whole policy, defaults included."""
    return Digest(hashlib.sha256(canonical_json(spec.model_dump(mode="json", by_alias=True))).hexdigest())


def training_digest(spec: ManagedModelSpec) -> Digest:
    """Return the digest of what a run learns from and how: a spec that changes elsewhere trains nothing anew."""
    parts = {
        "task": spec.task,
        "data": spec.data.model_dump(mode="json", by_alias=True),
        "train": spec.train.model_dump(mode="json", by_alias=True, include={"recipe", "learn_from", "split", "seed"}),
    }
    return Digest(hashlib.sha256(canonical_json(parts)).hexdigest())
