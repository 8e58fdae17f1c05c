"""Strangers cannot make metrics grow: other paths, models, versions, features and methods add no series.

Each service answers over a real socket what nobody should send it; then more of it, all different. The second lot
must add nothing to what the first has added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.metrics import Snapshot
from modelyard_common.testing import free_port, running
from modelyard_drift.adapters.metrics import PSI
from modelyard_drift.settings import DriftSettings
from modelyard_drift.wiring import build as build_drift
from modelyard_inference.settings import InferenceSettings
from modelyard_inference.wiring import build as build_inference
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build as build_registry
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build as build_training
from prometheus_client.parser import text_string_to_metric_families

from tools.observability.labels import LABELS, bound
from tools.observability.metrics_table import SERVICES, metrics_of

ODD = 40

Strange = Callable[[httpx.Client, int], None]


@pytest.fixture
def nowhere() -> str:
    """The address of a peer that is not there."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def serve(tmp_path: Path, nowhere: str) -> Iterator[Callable[[str], httpx.Client]]:
    """Serve one of the services alone."""
    peers = {f"{peer}_url": nowhere for peer in ("registry", "training", "drift", "mlflow")}

    def database(service: str) -> Database:
        made = Database(f"sqlite:///{tmp_path / service}.db")
        upgrade(made, f"modelyard_{service}")
        return made

    builders = {
        "registry": lambda: build_registry(
            RegistrySettings(data_dir=tmp_path, mlflow_url=nowhere, drift_url=nowhere),
            database("registry"),
            background=False,
        ),
        "training": lambda: build_training(
            TrainingSettings(
                data_dir=tmp_path, **{key: peers[key] for key in ("registry_url", "drift_url", "mlflow_url")}
            ),
            database("training"),
            background=False,
        ),
        "drift": lambda: build_drift(
            DriftSettings(data_dir=tmp_path, registry_url=nowhere, training_url=nowhere),
            database("drift"),
            background=False,
        ),
        "inference": lambda: build_inference(
            InferenceSettings(data_dir=tmp_path, registry_url=nowhere, drift_url=nowhere, drain_s=0, grpc_port=0)
        ),
    }
    with ExitStack() as stack:

        def start(service: str) -> httpx.Client:
            url = stack.enter_context(running(builders[service]()))
            return stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=20))

        yield start


def paths(http: httpx.Client, number: int) -> None:
    """Ask what no service has, by every method and some that are none."""
    http.get(f"/nope/{number}")
    http.get(f"/v1/nope/{number}?x={number}")
    http.request(f"ODD{number}", f"/v1/{number}")
    http.get(f"/metrics/{number}")


def registry(http: httpx.Client, number: int) -> None:
    for path in ("", "/versions", f"/versions/{number}", f"/versions/1/files/{number}", "/routing", "/rollouts"):
        http.get(f"/v1/models/stranger-{number}{path}")
    http.put(f"/v1/models/stranger-{number}", json={"spec": {f"field{number}": number}})
    http.post(f"/v1/models/stranger-{number}/rollback", json={"reason": str(number)})
    http.get(f"/api/2.0/mlflow/stranger-{number}")


def training(http: httpx.Client, number: int) -> None:
    http.post("/v1/runs", json={"model": f"stranger-{number}"})
    http.get(f"/v1/runs/run-{number}")
    http.get(f"/v1/datasets/sha256:{number:064x}")


def drift(http: httpx.Client, number: int) -> None:
    digest = f"sha256:{number:064x}"
    event = {
        "id": f"p{number}/0",
        "model": f"stranger-{number}",
        "revision": number,
        "champion": digest,
        "version": digest,
        "role": "champion",
        "event_time": "2026-01-01T00:00:00Z",
        "arrival": "2026-01-01T00:00:00Z",
        "features": {f"feature{number}": number},
        "prediction": f"class{number}",
        "latency_ms": 1.0,
    }
    assert http.post("/v1/events", json={"source": f"s{number}", "events": [event]}).status_code == 200
    http.post(f"/v1/models/nobody-{number}/labels", json={"labels": [{"prediction_id": "p/0", "value": 1}]})
    for path in ("status", "windows", f"windows/w{number}", "episodes"):
        http.get(f"/v1/models/stranger-{number}/{path}")


def inference(http: httpx.Client, number: int) -> None:
    body = {"inputs": [{"name": f"feature{number}", "shape": [1], "datatype": "FP64", "data": [number]}]}
    http.post(f"/v2/models/stranger-{number}/infer", json=body)
    http.post(f"/v2/models/stranger-{number}/versions/{number}/infer", json=body)
    http.post(f"/models/stranger-{number}/invocations", json={"inputs": [{f"feature{number}": number}]})
    http.get(f"/v2/models/stranger-{number}/ready")
    http.get(f"/v2/models/stranger-{number}/versions/{number}")


def series(http: httpx.Client) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return what a scrape gives, but for models that are no strangers.

    All services of this process count into one registry, also those that another test has left running with models.
    """
    text = http.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("model", "stranger").startswith(("stranger", "nobody"))
    }


STRANGE: dict[str, Strange] = {"registry": registry, "training": training, "drift": drift, "inference": inference}


@pytest.mark.parametrize("service", STRANGE)
def test_strangers_add_no_series(serve: Callable[[str], httpx.Client], service: str) -> None:
    http = serve(service)
    for number in range(3):
        paths(http, number)
        STRANGE[service](http, number)
    series(http)
    before = series(http)

    for number in range(3, 3 + ODD):
        paths(http, number)
        STRANGE[service](http, number)

    assert any(("route", "unmatched") in labels for _, labels in before), "strangers are not counted at all"
    assert series(http) - before == set()
    assert not [labels for _, labels in before if "stranger" in str(labels) or "feature1" in str(labels)]


@pytest.mark.parametrize("service", ["common", *SERVICES])
def test_every_label_is_bounded_by_words_or_by_what_there_is(service: str) -> None:
    for metric in metrics_of(service):
        assert set(metric.labels) <= LABELS.keys(), metric.name


@pytest.mark.parametrize(
    ("labels", "series"),
    [
        ((), "1"),
        (("service", "method"), "12"),
        (("model",), "1 for each model"),
        (("model", "decision"), "8 for each model"),
        (("model", "version", "role"), "3 for each version"),
        (("model", "feature"), "1 for each feature"),
    ],
)
def test_the_bound_of_a_metric_follows_from_its_labels(labels: tuple[str, ...], series: str) -> None:
    assert bound(labels) == series


def test_every_label_of_the_table_is_one_of_a_metric() -> None:
    used = {label for service in ("common", *SERVICES) for metric in metrics_of(service) for label in metric.labels}

    assert used == LABELS.keys()


def test_labels_that_grow_with_features_are_only_on_what_is_shown_as_a_whole() -> None:
    """A counter with a feature for a label would keep the features of every schema that there ever was."""
    by_feature = [metric for name in SERVICES for metric in metrics_of(name) if "feature" in metric.labels]

    assert [metric.kind for metric in by_feature] == ["gauge"]
    assert isinstance(PSI, Snapshot)
