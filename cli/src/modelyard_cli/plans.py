"""A plan as people read it: the fields that differ, then what follows from them."""

from __future__ import annotations

import json
from typing import Any

from modelyard_contracts.registry_v1 import FieldChange, ModelView, PlanView

from modelyard_cli.output import OUT

__all__ = ["show_farewell", "show_plan"]

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_HEADS = {
    "create": "would be made",
    "revive": "would be taken up again",
    "update": "would change",
    "none": "would not change",
}


def show_plan(plan: PlanView) -> None:
    """Print what applying a manifest would do."""
    lines = [f"model/{plan.model} {_HEADS[plan.action]}, generation {plan.generation}"]
    lines += [f"  {_SIGNS[change.op]} {change.path}: {_values(change)}  ({change.part})" for change in plan.changes]
    lines += [f"  {one.when:5}  {one.part}: {one.sentence}" for one in plan.consequences]
    for line in lines:
        OUT.print(line, soft_wrap=True, markup=False)


def show_farewell(model: ModelView, *, versions: int) -> None:
    """Print what deleting a model would do."""
    OUT.print(f"model/{model.name} would be deleted: it is trained and served no longer", soft_wrap=True, markup=False)
    kept = model.spec.get("deletionPolicy", "retain") == "retain"
    taken_up = "kept, and taken up again when its manifest is applied again"
    fate = taken_up if kept else "given up, with their bundles; only the ledger stays"
    OUT.print(f"  now    its versions ({versions}) are {fate}", soft_wrap=True, markup=False)


def _values(change: FieldChange) -> str:
    if change.op == "added":
        return _text(change.after)
    if change.op == "removed":
        return _text(change.before)
    return f"{_text(change.before)} → {_text(change.after)}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
