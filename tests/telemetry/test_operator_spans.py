"""A manifest that somebody applies to Kubernetes is followed by its trace: from the operator into the registry.

Operator and registry are processes of their own that export to a receiver; what joins them is the W3C header alone.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from modelyard_client import RegistryClient
from modelyard_common.testing import free_port_base, running
from modelyard_common.testing.api_server import ApiServer, kubeconfig_of

from tests.acceptance.collector import Collector, Seen, collecting
from tests.telemetry.test_ecs_logs import answers, environment, started, wait_for

OBJECTS = "managedmodels"
MANIFEST: dict[str, Any] = {
    "apiVersion": "modelyard.dev/v1alpha1",
    "kind": "ManagedModel",
    "metadata": {"name": "m"},
    "spec": {
        "task": "classification",
        "data": {"source": {"uri": f"dataset://sha256:{'d' * 64}"}, "target": "up"},
        "train": {"recipe": {"estimator": "decision_tree"}},
    },
}


@dataclass(frozen=True)
class Followed:
    """What the receiver has, and what the operator wrote."""

    collector: Collector
    lines: list[dict[str, Any]]

    def one(self, service: str, name: str) -> Seen:
        [found] = self.collector.named(service, name)
        return found


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """An object is applied and deleted; both processes end before anything is looked at."""
    home, server = tmp_path_factory.mktemp("spans"), ApiServer()
    base = free_port_base(3)
    ports = {"registry": base, "operator": base + 1}
    nowhere = f"http://127.0.0.1:{base + 2}"
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    peers = {f"{peer}_URL": nowhere for peer in ("TRAINING", "DRIFT", "INFERENCE", "MLFLOW")}
    with collecting() as collector, ExitStack() as stack:
        kubeconfig = kubeconfig_of(home, stack.enter_context(running(server.app)))
        own = {
            "registry": {"DATA_DIR": home / "registry"},
            "operator": {"REGISTRY_URL": urls["registry"], "KUBECONFIG": kubeconfig, "RESYNC_S": 0.5, "WATCH_S": 1},
        }
        processes = {}
        for service, port in ports.items():
            told = {"PORT": port, "DRAIN_S": 0, "OTLP_ENDPOINT": collector.url, **peers, **own[service]}
            processes[service] = started(home, service, environment(service, **told))
            stack.callback(processes[service].kill)
            wait_for(f"{service} answers", lambda url=urls[service]: answers(url))  # type: ignore[misc]
        registry = RegistryClient(urls["registry"])
        stack.callback(registry.close)
        server.create(OBJECTS, MANIFEST)
        wait_for("the registry has it", lambda: [one.name for one in registry.models()] == ["m"])
        wait_for("its status says so", lambda: "observedGeneration" in server.get(OBJECTS, "m").get("status", {}))
        server.remove(OBJECTS, "m")
        wait_for("it is gone", lambda: not server.all(OBJECTS) and not registry.models())
        for service in reversed(ports):
            processes[service].send_signal(signal.SIGTERM)
            assert processes[service].wait(60) == 0
        yield Followed(collector, _lines(home / "operator.out"))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "method", "event"),
    [("apply model", "PUT", "model.applied"), ("delete model", "DELETE", "model.deleted")],
)
def test_what_the_operator_does_is_a_trace_that_the_registry_goes_on_with(
    followed: Followed, name: str, method: str, event: str
) -> None:
    done = followed.one("operator", name)
    served = followed.one("registry", f"{method} /v1/models/{{name}}")

    assert done.parent == "" and not done.failed
    assert done.attributes == {"modelyard.model": "m"}
    assert followed.collector.up(served) == [served.place, ("operator", method), done.place]
    assert (served.trace, served.kind) == (done.trace, "server")
    assert [line["trace.id"] for line in followed.lines if line["message"] == event] == [done.trace]


def test_spans_say_which_process_made_them(followed: Followed) -> None:
    spans = followed.collector.spans.values()

    assert followed.collector.problems == []
    assert {span.service for span in spans} == {"operator", "registry"}
    assert all(span.resource["service.namespace"] == "modelyard" for span in spans)
    assert len({span.resource["service.instance.id"] for span in spans}) == 2


def test_rounds_that_change_nothing_are_no_traces(followed: Followed) -> None:
    """The operator looks round twice a second, and asks the registry each time."""
    spans = [span for span in followed.collector.spans.values() if span.service == "operator"]

    assert {span.name for span in spans if not span.parent} == {"apply model", "delete model"}
    assert {span.name for span in spans if span.parent} == {"PUT", "DELETE"}
