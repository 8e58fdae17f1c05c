"""The registry and training as drift needs them."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard_client import RegistryClient, TrainingClient
from modelyard_common.errors import NotFound
from modelyard_common.logs import get_logger
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.training_v1 import RunTrigger, SubmitRunRequest
from pydantic import ValidationError

from modelyard_drift.usecases.ports import Decided, Policy

__all__ = ["RegistryPolicies", "TrainingCommands"]

_log = get_logger(__name__)
_BASELINE_FILE = "baseline.json"


class RegistryPolicies:
    """Policies and baselines of the registry."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def policies(self) -> Sequence[Policy]:
        """Return the policies of all models; one that this version cannot read is left out, and logged."""
        found = []
        for view in self._client.models():
            try:
                spec = ManagedModelSpec.model_validate(view.spec)
            except ValidationError as exc:
                _log.warning("policy.unreadable", model=view.name, errors=exc.error_count())
                continue
            found.append(Policy(view.name, spec, view.spec_digest, view.deleted))
        return found

    def baseline(self, model: str, digest: str) -> str | None:
        """Return the baseline in a version's bundle; None when the bundle has none."""
        try:
            return self._client.file(model, digest, _BASELINE_FILE).decode()
        except NotFound:
            return None


class TrainingCommands:
    """Commands to training."""

    def __init__(self, client: TrainingClient) -> None:
        self._client = client

    def command(self, decision: Decided) -> str:
        """Deliver a retrain command; return the run's id."""
        kind = "performance" if decision.trigger == "performance" else "drift"
        request = SubmitRunRequest(
            model=decision.model,
            trigger=RunTrigger(kind=kind, reason=decision.reason, episode=decision.episode),
            until_label_seq=decision.label_seq,
        )
        return self._client.submit(request, idempotency_key=decision.id).id
