"""A world for the tests of drift: fakes of its peers behind its ports, its API over a real socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
from modelyard_common.errors import Unavailable
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_drift.api.services import DriftServices
from modelyard_drift.usecases.ports import Decided, Policy
from modelyard_stats.baseline import build_baseline

V1 = "sha256:" + "1" * 64
V2 = "sha256:" + "2" * 64
START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "meter"


def spec(**changes: Any) -> ManagedModelSpec:
    """A policy with windows of 100 rows that retrains on high severity."""
    document: dict[str, Any] = {
        "task": "classification",
        "data": {"source": {"uri": "dataset://sha256:" + "a" * 64}, "target": "y", "positiveClass": 1},
        "train": {
            "recipe": {"estimator": "logistic_regression"},
            "when": [{"drift": {"atLeast": "high", "cooldown": "1d", "maxPerWeek": 3}}],
        },
        "monitor": {
            "window": {"rows": 100},
            "drift": {"psi": 0.2, "minRows": 50},
            "performance": {"metric": "accuracy"},
            "labelDelay": "1h",
            "replay": True,
        },
    }
    for path, value in changes.items():
        part = document
        *parents, leaf = path.split("__")
        for parent in parents:
            part = part[parent]
        part[leaf] = value
    return ManagedModelSpec.model_validate(document)


def baseline_text(shift: float = 0.0) -> str:
    """A baseline of two features, ``heat`` that matters and ``noise`` that does not."""
    generator = np.random.default_rng(5)
    return build_baseline(
        {"heat": generator.normal(shift, 1, 2000), "noise": generator.normal(0, 1, 2000)},
        importances={"heat": 1.0, "noise": 0.0},
        predictions=generator.uniform(0, 1, 2000),
    ).to_json()


@dataclass
class FakeRegistry:
    """Tells policies and baselines, or is away."""

    known: list[Policy] = field(default_factory=lambda: [Policy(MODEL, spec(), "sha256:" + "0" * 64)])
    baselines: dict[str, str] = field(default_factory=lambda: {V1: baseline_text(), V2: baseline_text(3.0)})
    away: bool = False

    def policies(self) -> Sequence[Policy]:
        if self.away:
            raise Unavailable("registry cannot be reached")
        return self.known

    def baseline(self, model: str, digest: str) -> str | None:
        del model
        if self.away:
            raise Unavailable("registry cannot be reached")
        return self.baselines.get(digest)


@dataclass
class FakeTraining:
    """Takes commands, or fails as told."""

    commands: list[Decided] = field(default_factory=list)
    failure: Exception | None = None
    answers_get_lost: bool = False

    def command(self, decision: Decided) -> str:
        if self.failure is not None:
            raise self.failure
        if decision.id not in [known.id for known in self.commands]:
            self.commands.append(decision)
        if self.answers_get_lost:
            raise Unavailable("training does not answer")
        return f"run-{decision.id}"


@dataclass
class World:
    """Drift, with everything around it in the test's hand."""

    client: httpx.Client
    registry: FakeRegistry
    training: FakeTraining
    turn: Callable[[], None]
    refresh: Callable[[], bool]
    fold_overdue: Callable[[], None]
    show_metrics: Callable[[], None]
    services: DriftServices
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))
    sent: int = 0
    last: list[dict[str, Any]] = field(default_factory=list)

    def rows(self, number: int, *, heat: float = 0.0, noise: float = 0.0, **changes: Any) -> list[dict[str, Any]]:
        """Make events, one an event-time minute."""
        made = []
        for _ in range(number):
            at = (START + timedelta(minutes=self.sent)).isoformat()
            score = float(self.generator.uniform())
            made.append(
                {
                    "id": f"p{self.sent}/0",
                    "model": MODEL,
                    "revision": 1,
                    "champion": V1,
                    "version": V1,
                    "role": "champion",
                    "event_time": at,
                    "arrival": at,
                    "features": {
                        "heat": float(self.generator.normal(heat, 1)),
                        "noise": float(self.generator.normal(noise, 1)),
                    },
                    "prediction": int(score > 0.5),
                    "score": score,
                    "latency_ms": 1.0,
                }
                | changes
            )
            self.sent += 1
        self.last = made
        return made

    def send(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Send events and process them."""
        response = self.client.post("/v1/events", json={"source": "test", "events": events})
        assert response.status_code == 200, response.text
        self.turn()
        answer: dict[str, Any] = response.json()
        return answer

    def label(self, labels: list[dict[str, Any]]) -> Any:
        """Send labels and process them."""
        response = self.client.post(f"/v1/models/{MODEL}/labels", json={"labels": labels})
        self.turn()
        return response

    def get(self, path: str, **params: Any) -> Any:
        """Return a JSON answer about the model."""
        response = self.client.get(f"/v1/models/{MODEL}/{path}", params=params)
        assert response.status_code == 200, response.text
        return response.json()
