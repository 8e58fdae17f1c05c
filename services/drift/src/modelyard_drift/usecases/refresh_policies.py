"""Follow the policies that the registry holds. What is known stays in force while the registry is away."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_common.errors import Unavailable
from modelyard_common.logs import get_logger

from modelyard_drift.usecases.ports import RegistryPort, Transactions

__all__ = ["RefreshPolicies"]

_log = get_logger(__name__)


@dataclass(slots=True)
class RefreshPolicies:
    """One turn asks for all policies and keeps those that changed."""

    transactions: Transactions
    registry: RegistryPort
    problem: str | None = "the registry has not been asked yet"

    def __call__(self) -> bool:
        """Return whether anything changed."""
        try:
            told = self.registry.policies()
        except Unavailable as exc:
            if self.problem is None:
                _log.warning("registry.away", reason=str(exc))
            self.problem = str(exc)
            return False
        self.problem = None
        with self.transactions.read() as store:
            known = {policy.model: (policy.spec_digest, policy.deleted) for policy in store.policies()}
        changed = [policy for policy in told if known.get(policy.model) != (policy.spec_digest, policy.deleted)]
        if changed:
            with self.transactions.write() as writer:
                for policy in changed:
                    writer.save_policy(policy)
        return bool(changed)

    def check(self) -> str | None:
        """Return what is wrong: a health check."""
        return self.problem
