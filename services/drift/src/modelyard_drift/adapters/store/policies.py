"""What was read of the registry: policies and baselines."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from modelyard_drift.adapters.records import policy_from
from modelyard_drift.adapters.store.session import Reading, Writing
from modelyard_drift.adapters.tables import BaselineRow, PolicyRow
from modelyard_drift.usecases.ports import Policy

__all__ = ["ReadsPolicies", "WritesPolicies"]


class ReadsPolicies(Reading):
    """Reads policies and baselines."""

    def policies(self) -> Sequence[Policy]:
        """Return all policies."""
        return [policy_from(row) for row in self._session.scalars(select(PolicyRow).order_by(PolicyRow.model))]

    def policy(self, model: str) -> Policy | None:
        """Return a model's policy."""
        row = self._session.get(PolicyRow, model)
        return policy_from(row) if row is not None else None

    def baseline(self, digest: str) -> str | None:
        """Return the baseline of a version."""
        row = self._session.get(BaselineRow, digest)
        return row.document if row is not None else None


class WritesPolicies(ReadsPolicies, Writing):
    """Keeps policies and baselines."""

    def save_policy(self, policy: Policy) -> None:
        """Keep a policy."""
        values = {
            "spec": policy.spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "spec_digest": policy.spec_digest,
            "deleted": policy.deleted,
        }
        self._writing.merge(PolicyRow(model=policy.model, **values))

    def save_baseline(self, digest: str, document: str) -> None:
        """Keep a baseline."""
        self._writing.merge(BaselineRow(digest=digest, document=document))
