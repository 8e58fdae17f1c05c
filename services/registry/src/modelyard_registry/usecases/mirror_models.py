"""Mirror models into MLflow: versions in their order, aliases, states. Run again and again by a task.

The work list is durable and says only *which* model is behind; what to do is found by comparing the registry's
state with the mirror's, so that a repeated or interrupted round does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError

from modelyard_registry.domain.aliases import alias_changes, desired_aliases
from modelyard_registry.usecases.ports import ModelMirror, Reader, Transactions
from modelyard_registry.usecases.records import MirrorTask, Model, Version

__all__ = ["MirrorModels"]

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits between attempts; the last one is repeated for as long as MLflow is away."""


@dataclass(frozen=True, slots=True)
class MirrorModels:
    """Bring the mirrors up to date that are behind."""

    transactions: Transactions
    mirror: ModelMirror
    clock: Clock

    def __call__(self) -> int:
        """Work on every mirror that is due once; return how many were brought up to date."""
        with self.transactions.read() as reader:
            due = reader.mirror_due(self.clock.now())
        return sum(self._one(task) for task in due)

    def _one(self, task: MirrorTask) -> bool:
        with self.transactions.read() as reader:
            model, versions = reader.model(task.model), _all_versions(reader, task.model)
        if model is None:
            return False
        try:
            self._reconcile(model, versions)
        except ModelyardError as exc:
            wait_s = BACKOFF_S[min(task.attempts, len(BACKOFF_S) - 1)]
            with self.transactions.write() as store:
                store.mirror_failed(task, str(exc)[:500], self.clock.now() + timedelta(seconds=wait_s))
            return False
        with self.transactions.write() as store:
            store.mirror_done(task)
        return True

    def _reconcile(self, model: Model, versions: list[Version]) -> None:
        if model.deleted and model.spec.deletion_policy == "delete":
            self.mirror.delete_model(model.name)
            return
        shown = self.mirror.ensure_model(model.name, model.spec.description)
        placed = [self._place(version) for version in versions]
        numbers = {version.state: version.mlflow_version for version in placed}
        desired = desired_aliases(numbers.get("champion"), numbers.get("candidate"))
        for change in alias_changes(desired, shown.aliases):
            self.mirror.set_alias(model.name, change)

    def _place(self, version: Version) -> Version:
        """Return the version with its number in the mirror, and its state shown there."""
        if version.mlflow_version is None:
            version = self._keep(version, mlflow_version=self.mirror.ensure_version(version))
        if version.mirrored_state != version.state:
            self.mirror.set_state(version)
            version = self._keep(version, mirrored_state=version.state)
        return version

    def _keep(self, version: Version, **changes: Any) -> Version:
        """Write down what the mirror shows, and nothing else: the version may have moved on meanwhile."""
        with self.transactions.write() as store:
            store.lock_model(version.model)
            now = store.version(version.model, version.digest)
            if now is not None:
                store.save_version(replace(now, **changes))
        return replace(version, **changes)


def _all_versions(reader: Reader, name: str) -> list[Version]:
    """Return the versions to mirror, oldest first, so that their numbers come out equal.

    A version that was given up with its model (``deletionPolicy: delete``) is among them when the model is
    revived: MLflow then counts anew, and the numbers are mapped.
    """
    found: list[Version] = []
    before: int | None = None
    while page := reader.versions(name, before=before, limit=200):
        found += page
        before = page[-1].number
    return found[::-1]
