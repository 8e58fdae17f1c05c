"""The registry and drift as this service needs them: which models there are, and which label is the newest.

A model whose spec this version cannot read is left out and logged: one of them must not keep the others waiting.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard_client import DriftClient, RegistryClient
from modelyard_common.errors import Invalid, NotFound
from modelyard_common.logs import get_logger
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.registry_v1 import ModelView
from pydantic import ValidationError

from modelyard_training.domain.ports import KnownModel

__all__ = ["DriftLabels", "RegistryModels"]

log = get_logger(__name__)


class RegistryModels:
    """The models of the registry."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def all(self) -> Sequence[KnownModel]:
        """Return the models that are not deleted."""
        found = []
        for view in self._client.models():
            if view.deleted:
                continue
            try:
                found.append(_known(view))
            except ValidationError as exc:
                log.warning("model.unreadable", model=view.name, errors=exc.error_count())
        return found

    def one(self, name: str) -> KnownModel | None:
        """Return a model, also a deleted one; None when there never was one."""
        try:
            view = self._client.model(name)
        except NotFound:
            return None
        try:
            return _known(view)
        except ValidationError as exc:
            raise Invalid(f"the spec of model {name!r} has fields that this version does not know") from exc


class DriftLabels:
    """The labels that drift has."""

    def __init__(self, client: DriftClient) -> None:
        self._client = client

    def newest_seq(self, model: str) -> int:
        """Return the sequence number of the newest label; 0 when drift knows nothing of the model yet."""
        try:
            return self._client.status(model).label_seq
        except NotFound:
            return 0


def _known(view: ModelView) -> KnownModel:
    return KnownModel(
        name=view.name,
        training_digest=view.training_digest,
        spec=ManagedModelSpec.model_validate(view.spec),
        written=view.spec,
        champion=view.champion.digest if view.champion else None,
        deleted=view.deleted,
    )
