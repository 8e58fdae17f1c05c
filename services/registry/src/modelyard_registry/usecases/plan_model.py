"""Plan a manifest: tell what applying it would do, and do nothing.

It decides with the very functions that apply decides with, so that the two cannot come to differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.registry_v1 import Consequence, FieldChange, PlanView

from modelyard_registry.domain.consequences import PARTS, Facts, consequences, part_of
from modelyard_registry.domain.spec_changes import spec_changes
from modelyard_registry.usecases.apply_model import model_under, moves_routing, pinned_version
from modelyard_registry.usecases.ports import Reader
from modelyard_registry.usecases.records import Model, Version

__all__ = ["plan_model"]


def plan_model(reader: Reader, manifest: ManagedModel, now: datetime) -> PlanView:
    """Return what applying the manifest would do."""
    before = reader.model(manifest.metadata.name)
    after = model_under(manifest, before, now)
    changes = spec_changes(before.spec, after.spec) if before is not None else ()
    return PlanView(
        model=after.name,
        action=_action(before, after),
        generation=after.generation,
        spec_digest=after.spec_digest,
        training_digest=after.training_digest,
        changes=tuple(
            FieldChange(
                path=change.path, op=change.op, before=change.before, after=change.after, part=part_of(change.path)
            )
            for change in changes
        ),
        consequences=_consequences(reader, before, after, [change.path for change in changes]),
    )


def _action(before: Model | None, after: Model) -> Literal["create", "revive", "update", "none"]:
    if before is None:
        return "create"
    if before.deleted:
        return "revive"
    return "none" if after == before else "update"


def _consequences(reader: Reader, before: Model | None, after: Model, paths: list[str]) -> tuple[Consequence, ...]:
    if after == before:
        return ()
    anew = before is None or before.deleted
    # Of a model that is made anew, everything is new but what is merely kept.
    touched = [prefix for prefix, part in PARTS if part not in ("record", "pause")] if anew else paths
    found = consequences(touched, _facts(reader, before, after))
    return tuple(Consequence(part=one.part, when=one.when, sentence=one.sentence) for one in found)


def _facts(reader: Reader, before: Model | None, after: Model) -> Facts:
    gone = before is None or before.deleted
    pinned = after.spec.rollout.version
    return Facts(
        champion=reader.champion(after.name) is not None,
        learns_anew=before is None or gone or before.training_digest != after.training_digest,
        trained_as=_trained_as(reader, before, after),
        paused=after.spec.paused,
        unpaused=before is not None and before.spec.paused and not after.spec.paused,
        routing_moves=moves_routing(before, after),
        rolling_out=reader.active_rollout(after.name) is not None,
        pins=pinned is not None,
        pinned_starts=pinned_version(reader, after) is not None,
        pinned_unknown=pinned is not None and reader.version(after.name, pinned) is None,
    )


def _trained_as(reader: Reader, before: Model | None, after: Model) -> str:
    """Return which version was trained on this data and recipe; none counts of a model that gave up its versions."""
    if before is not None and before.deleted and before.spec.deletion_policy == "delete":
        return ""
    digest = after.training_digest
    known = (one.name for one in _versions(reader, after.name) if one.manifest.lineage.training_digest == digest)
    return next(known, "")


def _versions(reader: Reader, model: str) -> Iterator[Version]:
    before: int | None = None
    while page := reader.versions(model, before=before, limit=100):
        yield from page
        before = page[-1].number
