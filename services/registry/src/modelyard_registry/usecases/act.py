"""Who does something, when, and in which transaction: what every change of the registry needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard_common.errors import NotFound

from modelyard_registry.usecases.ports import Reader, Store
from modelyard_registry.usecases.records import Model, Version

__all__ = ["Act", "find_model", "find_version"]


@dataclass(frozen=True, slots=True)
class Act:
    """One actor's change at one moment."""

    store: Store
    actor: str
    now: datetime

    def record(self, kind: str, model: str, subject: str, /, **body: Any) -> None:
        """Append to the ledger, in the same transaction as the change."""
        self.store.record(at=self.now, actor=self.actor, kind=kind, model=model, subject=subject, body=body)

    def touch(self, model: str) -> None:
        """Announce a change of a model, and have its mirror follow."""
        self.store.announce(model, self.now)
        self.store.want_mirror(model, self.now)

    def lock(self, name: str) -> Model:
        """Return the model, locked; raise NotFound when there is none or it is deleted."""
        return _present(self.store.lock_model(name), name)


def find_model(reader: Reader, name: str) -> Model:
    """Return the model; raise NotFound when there is none or it is deleted."""
    return _present(reader.model(name), name)


def find_version(reader: Reader, model: str, ref: str | int) -> Version:
    """Return the version that a digest or a number names; raise NotFound otherwise."""
    number = int(ref) if isinstance(ref, int) or ref.isdecimal() else None
    found = reader.version(model, str(ref)) if number is None else reader.version_number(model, number)
    if found is None:
        raise NotFound(f"model {model!r} has no version {str(ref)[:80]!r}")
    return found


def _present(model: Model | None, name: str) -> Model:
    if model is None or model.deleted:
        raise NotFound(f"there is no model {name!r}; apply its manifest first")
    return model
