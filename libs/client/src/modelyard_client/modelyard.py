"""The façade for notebooks: ``Modelyard().models["churn"].predict(frame)``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.drift_v1 import DriftStatus, Label, LabelBatch, LabelReceipt
from modelyard_contracts.events_v1 import FeatureValue
from modelyard_contracts.registry_v1 import (
    ModelView,
    PromotionRequest,
    PromotionView,
    RollbackRequest,
    RolloutView,
    VersionSummary,
)
from modelyard_contracts.training_v1 import RunTrigger, RunView, SubmitRunRequest

from modelyard_client.drift import DriftClient
from modelyard_client.inference import InferenceClient, Prediction
from modelyard_client.registry import RegistryClient
from modelyard_client.training import TrainingClient

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Model", "Models", "Modelyard"]

_DEFAULTS = {
    "registry": "http://127.0.0.1:8081",
    "training": "http://127.0.0.1:8082",
    "inference": "http://127.0.0.1:8080",
    "drift": "http://127.0.0.1:8083",
}


class Model:
    """One model of the platform."""

    def __init__(self, name: str, platform: Modelyard) -> None:
        self.name = name
        self._platform = platform

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    def predict(
        self,
        rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
        *,
        event_time: datetime | None = None,
        routing_key: str | None = None,
    ) -> Prediction:
        """Predict rows; keep the answer's ``id`` to send labels later."""
        return self._platform.inference.infer(self.name, rows, event_time=event_time, routing_key=routing_key)

    def labels(self, values: Mapping[str, FeatureValue]) -> LabelReceipt:
        """Send the truth: prediction id (``<id>/<row>``) to value."""
        batch = LabelBatch(labels=tuple(Label(prediction_id=key, value=value) for key, value in values.items()))
        return self._platform.drift.send_labels(self.name, batch)

    def train(self, reason: str = "") -> RunView:
        """Start a training run and return it as it is now; see ``Modelyard.training.run``."""
        trigger = RunTrigger(kind="manual", reason=reason)
        return self._platform.training.submit(SubmitRunRequest(model=self.name, trigger=trigger))

    def view(self) -> ModelView:
        """Return the policy and where the model stands."""
        return self._platform.registry.model(self.name)

    def versions(self) -> list[VersionSummary]:
        """Return all versions, newest first."""
        return self._platform.registry.versions(self.name)

    def promote(self, version: int | str, reason: str = "") -> PromotionView:
        """Ask for a version to become champion."""
        return self._platform.registry.promote(self.name, PromotionRequest(version=version, reason=reason))

    def rollback(self, reason: str = "") -> RolloutView:
        """Return to the previous champion at once."""
        return self._platform.registry.rollback(self.name, RollbackRequest(reason=reason))

    def status(self) -> DriftStatus:
        """Return where drift stands."""
        return self._platform.drift.status(self.name)


class Models(Mapping[str, Model]):
    """The models by name. Looking one up asks nobody: a name that is not known is found out at the first call."""

    def __init__(self, platform: Modelyard) -> None:
        self._platform = platform

    def __getitem__(self, name: str) -> Model:
        return Model(name, self._platform)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self._platform.registry.model(name).name == name
        except (NotFound, Invalid):
            return False

    def __iter__(self) -> Iterator[str]:
        return iter([view.name for view in self._platform.registry.models()])

    def __len__(self) -> int:
        return len(self._platform.registry.models())


class Modelyard:
    """The platform; a context manager that closes its connections.

    Args:
        registry_url, training_url, inference_url, drift_url: default to ``MODELYARD_REGISTRY_URL`` and its likes,
            then to the ports of the embedded platform on this machine.
        token_file: default ``MODELYARD_TOKEN_FILE``.
    """

    def __init__(
        self,
        *,
        registry_url: str | None = None,
        training_url: str | None = None,
        inference_url: str | None = None,
        drift_url: str | None = None,
        token_file: Path | None = None,
    ) -> None:
        if token_file is None and (from_environment := os.environ.get("MODELYARD_TOKEN_FILE")):
            token_file = Path(from_environment)
        self.registry = RegistryClient(registry_url or _url("registry"), token_file=token_file)
        self.training = TrainingClient(training_url or _url("training"), token_file=token_file)
        self.inference = InferenceClient(inference_url or _url("inference"), token_file=token_file)
        self.drift = DriftClient(drift_url or _url("drift"), token_file=token_file)
        self.models = Models(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for client in (self.registry, self.training, self.inference, self.drift):
            client.close()


def _url(service: str) -> str:
    return os.environ.get(f"MODELYARD_{service.upper()}_URL", _DEFAULTS[service])
