"""Strangers at a live platform with models, over every protocol: they add no series, and the table's bounds hold.

The platform is the one that the other tests watched, as processes: each scrape is of one service alone.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from modelyard_cli.embedded.layout import Layout
from modelyard_client import InferenceClient, RegistryClient
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families

from tests.observability.test_observability_cardinality import STRANGE, paths
from tests.observability.test_observability_metrics import known
from tools.observability.aftermath import OPERATED
from tools.observability.labels import LABELS
from tools.observability.stage import Prometheus

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(480)]

LIVE = "electricity"
MORE = 15
SERVICES = ("registry", "training", "drift", "inference", "operator")
OBJECTS = "/apis/modelyard.dev/v1alpha1/namespaces/default/managedmodels"
Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Live:
    """The platform."""

    urls: Mapping[str, str]
    grpc: grpc.Channel
    kubernetes: str
    features: tuple[str, ...]

    def http(self, service: str) -> httpx.Client:
        return httpx.Client(base_url=self.urls[service], trust_env=False, timeout=20)

    def scraped(self, service: str) -> set[Series]:
        with self.http(service) as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
            return {(one.name, tuple(sorted(one.labels.items()))) for family in families for one in family.samples}


@pytest.fixture(scope="module")
def live(watched: Prometheus) -> Iterator[Live]:
    targets = watched.get("targets")["activeTargets"]
    urls = {
        one["labels"]["job"].removeprefix("modelyard-"): one["scrapeUrl"].removesuffix("/metrics") for one in targets
    }
    assert watched.home is not None
    cluster = json.loads((watched.home / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    base = int(urls["inference"].rpartition(":")[2])
    layout = Layout(watched.home / f"demo-{LIVE}", base)
    client = InferenceClient(layout.url("inference"))
    features = tuple(one.name for one in client.metadata(LIVE).inputs)
    client.close()
    with grpc.insecure_channel(f"127.0.0.1:{layout.port('inference-grpc')}") as channel:
        yield Live(urls, channel, cluster, features)


def headers(number: int) -> dict[str, str]:
    """Return every header that a service reads, each with something new."""
    return {
        "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
        "user-agent": f"stranger/{number}",
        "x-request-id": f"stranger-{number}",
        "authorization": f"Bearer stranger-{number}",
        "idempotency-key": f"stranger-{number}",
        "modelyard-routing-key": f"stranger-{number}",
        "modelyard-event-time": f"1970-01-01T00:00:{number % 60:02}Z",
        "modelyard-timeout-ms": f"{5000 + number}",
        f"x-stranger-{number}": f"{number}",
    }


def inference(live: Live, number: int) -> None:
    with live.http("inference") as http:
        http.headers.update(headers(number))
        STRANGE["inference"](http, number)
        right = [{"name": name, "shape": [1], "datatype": "FP64", "data": [number]} for name in live.features]
        wrong = [*right, {"name": f"feature{number}", "shape": [1], "datatype": "FP64", "data": [number]}]
        row = dict.fromkeys(live.features, number) | {f"feature{number}": number}
        answered = http.post(f"/v2/models/{LIVE}/infer", json={"id": f"stranger-{number}", "inputs": right})
        assert answered.status_code == httpx.codes.OK, answered.text
        http.post(f"/v2/models/{LIVE}/infer", json={"inputs": wrong})
        http.post(f"/v2/models/{LIVE}/infer", json={"inputs": right, "outputs": [{"name": f"output{number}"}]})
        http.post(f"/v2/models/{LIVE}/versions/{1000 + number}/infer", json={"inputs": right})
        http.get(f"/v2/models/{LIVE}/versions/{1000 + number}/ready")
        http.post(f"/v1/models/{LIVE}:predict", json={"instances": [row]})
        http.post(f"/v1/models/stranger-{number}:predict", json={"instances": [row]})
        http.post(f"/v1/models/{LIVE}:odd{number}", json={"instances": [row]})
        http.post(f"/models/{LIVE}/invocations", json={"dataframe_records": [row]})
        http.post("/invocations", json={"dataframe_records": [row]})
    call(live, "ModelInfer", pb.ModelInferRequest(model_name=f"stranger-{number}"))
    call(live, "ModelInfer", pb.ModelInferRequest(model_name=LIVE, model_version=f"{1000 + number}"))
    odd = pb.ModelInferRequest(model_name=LIVE)
    odd.inputs.add(name=f"feature{number}", datatype="FP64", shape=[1])
    call(live, "ModelInfer", odd)
    call(live, "ModelReady", pb.ModelReadyRequest(name=f"stranger-{number}"))
    call(live, f"Odd{number}", odd)
    call(live, "Infer", odd, service=f"stranger{number}.Service")


def call(live: Live, method: str, request: Any, *, service: str = "inference.GRPCInferenceService") -> None:
    ask = live.grpc.unary_unary(f"/{service}/{method}", request_serializer=type(request).SerializeToString)
    try:
        ask(request, timeout=10)
    except grpc.RpcError as error:
        assert error.code() in (
            *(grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED),
        )


def registry(live: Live, number: int) -> None:
    with live.http("registry") as http:
        http.headers.update(headers(number))
        STRANGE["registry"](http, number)
        http.get(f"/v1/models/{LIVE}/versions/{1000 + number}")
        http.post(f"/v1/models/{LIVE}/rollback", json={"to": 1000 + number})
        http.post(f"/v1/models/{LIVE}/promotions", json={"version": 1000 + number})
        http.get("/v1/ledger", params={"model": f"stranger-{number}", f"odd{number}": number})
        http.get(f"/api/2.0/mlflow/registered-models/get?name=stranger-{number}")
        http.get(f"/api/2.0/mlflow-artifacts/artifacts/stranger-{number}")


def training(live: Live, number: int) -> None:
    with live.http("training") as http:
        http.headers.update(headers(number))
        STRANGE["training"](http, number)
        http.post("/v1/runs", json={"model": LIVE, f"odd{number}": number})
        http.post("/v1/datasets", content=f"a{number}\n", headers={"content-type": f"text/odd{number}"})


def drift(live: Live, number: int) -> None:
    with live.http("drift") as http:
        http.headers.update(headers(number))
        STRANGE["drift"](http, number)
        label = {"prediction_id": f"stranger-{number}/0", "value": number}
        http.post(f"/v1/models/{LIVE}/labels", json={"labels": [label]})
        http.get(f"/v1/models/{LIVE}/reports/stranger-{number}")


def operator(live: Live, number: int) -> None:
    """Apply objects that nobody can train: their names are the strangers here."""
    metadata = {"name": f"stranger-{number}"}
    document = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ManagedModel", "metadata": metadata}
    made = httpx.post(live.kubernetes + OBJECTS, json=document | {"spec": {f"odd{number}": number}}, trust_env=False)
    assert made.status_code == httpx.codes.CREATED, made.text


ASKED: dict[str, Callable[[Live, int], None]] = {
    "inference": inference,
    "registry": registry,
    "training": training,
    "drift": drift,
    "operator": operator,
}


@pytest.mark.parametrize("service", SERVICES)
def test_strangers_at_a_service_with_models_add_no_series(live: Live, service: str) -> None:
    def send(number: int) -> None:
        with live.http(service) as http:
            paths(http, number)
        ASKED[service](live, number)

    for number in range(3):
        send(number)
    before = live.scraped(service)
    assert any(("route", "unmatched") in labels for _, labels in before), "strangers are not counted at all"
    for number in range(3, 3 + MORE):
        send(number)

    assert live.scraped(service) - before == set()
    assert not [labels for _, labels in before if "stranger" in str(labels) or "feature1" in str(labels)]


@pytest.mark.parametrize("service", SERVICES)
def test_the_bounds_of_the_table_hold(live: Live, service: str) -> None:
    allowed = grown(live)
    of_metric: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, labels in live.scraped(service):
        for label, value in labels if name.startswith("modelyard_") else ():
            of_metric[name][label].add(value)

    for name, found in of_metric.items():
        for label in found.keys() & LABELS.keys():
            most = LABELS[label].most
            if most is not None:
                assert len(found[label]) <= most, (name, label, found[label])
            else:
                assert found[label] <= allowed[label], (name, label)
    assert of_metric.keys() <= scrape_names()


@functools.cache
def scrape_names() -> set[str]:
    parts = ("", "_bucket", "_sum", "_count", "_created")
    return {name.removesuffix("_total" if part == "_created" else "") + part for name in known() for part in parts}


def grown(live: Live) -> dict[str, set[str]]:
    """Return what labels that grow may say: what the registry has."""
    client = RegistryClient(live.urls["registry"])
    names = {one.name for one in client.models()}
    versions = {str(one.number) for name in names for one in client.versions(name)}
    client.close()
    assert {LIVE, OPERATED} <= names and len(versions) > 1
    return {"model": names, "version": versions, "feature": {*live.features, "prediction"}}
