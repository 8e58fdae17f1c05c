"""The cluster itself: what every test on it relies on, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from modelyard_common.testing.required import unavailable

from tests.cluster.pods import TOKEN, deployment, job, registry_pod, service, tokens_secret
from tools.cluster import binaries, cleanup, node
from tools.cluster.access import Cluster, CommandError
from tools.cluster.errors import CannotRun
from tools.cluster.layout import Layout

# Making the cluster takes minutes where Kubernetes must be built first; the limit is for the tests alone.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300, func_only=True)]

ROOT = Path(__file__).resolve().parents[2]
Image = Callable[[str], str]
FETCH = """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=10).status, url)
"""


def test_every_node_is_ready_and_within_a_minor_of_our_kubectl(cluster: Cluster) -> None:
    nodes = cluster.get("nodes")["items"]
    version = json.loads(cluster.kubectl("version", "--output=json"))
    minors = [int(version[side]["minor"].rstrip("+")) for side in ("clientVersion", "serverVersion")]

    ready = [c["status"] for n in nodes for c in n["status"]["conditions"] if c["type"] == "Ready"]
    assert ready
    assert set(ready) == {"True"}
    assert abs(minors[0] - minors[1]) <= 1


def test_pod_that_is_not_restricted_is_refused(cluster: Cluster, namespace: str, image: Image) -> None:
    pod = registry_pod(image("registry"))
    del pod["securityContext"]["runAsNonRoot"]
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": pod}

    with pytest.raises(CommandError, match='violates PodSecurity "restricted:latest": runAsNonRoot'):
        cluster.apply(bare, namespace=namespace)


def test_our_image_becomes_ready_as_a_restricted_pod_and_asks_for_a_token(
    cluster: Cluster, namespace: str, image: Image
) -> None:
    _run_registry(cluster, namespace, image)

    with cluster.forward(namespace, "deployment/registry", 8081) as url:
        live = httpx.get(f"{url}/health/live", timeout=10)
        stranger = httpx.get(f"{url}/v1/models", timeout=10)
        known = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {TOKEN}"}, timeout=10)

    assert live.status_code == 200
    assert stranger.status_code == 401
    assert known.status_code == 200


def test_pods_reach_each_other_by_the_names_of_services(cluster: Cluster, namespace: str, image: Image) -> None:
    _run_registry(cluster, namespace, image)
    names = ("registry", f"registry.{namespace}", f"registry.{namespace}.svc.cluster.local")
    urls = [f"http://{name}:8081/health/live" for name in names]

    cluster.apply(job("client", image("registry"), FETCH, urls), namespace=namespace)
    try:
        cluster.kubectl("wait", f"-n={namespace}", "--for=condition=Complete", "job/client", "--timeout=50s")
    except CommandError as error:
        pytest.fail(f"{error}\n{cluster.kubectl('logs', f'-n={namespace}', 'job/client')}")

    assert cluster.kubectl("logs", f"-n={namespace}", "job/client").splitlines() == [f"200 {url}" for url in urls]


def test_autoscaler_gets_the_cpu_of_pods(cluster: Cluster, namespace: str, image: Image) -> None:
    _run_registry(cluster, namespace, image)
    cluster.kubectl("autoscale", f"-n={namespace}", "deployment/registry", "--cpu=60%", "--min=1", "--max=2")

    def metric() -> int | None:
        # Until there is one, the list holds an entry without anything.
        metrics = cluster.get(f"--namespace={namespace}", "hpa/registry")["status"].get("currentMetrics") or [{}]
        return metrics[0].get("resource", {}).get("current", {}).get("averageUtilization")

    def explain() -> str:
        return cluster.kubectl("describe", f"-n={namespace}", "hpa/registry")

    cluster.eventually(lambda: metric() is not None, timeout_s=120, explain=explain)
    used = cluster.kubectl("top", "pods", f"-n={namespace}", "--no-headers")

    assert used.startswith("registry-")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_stays_behind_when_a_cluster_ends(end: signal.Signals, tmp_path: Path) -> None:
    try:
        node.require_machine()
        binaries.ensure()
    except CannotRun as reason:
        unavailable(str(reason))
    before = _network_of_this_machine()
    with _command("up") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        layout = Layout(Path(said.strip().rpartition("=")[2]).parent)
        alive = cleanup.leftovers(layout)
        process.send_signal(end)
        process.wait(60)

    if end is signal.SIGKILL:
        with _command("clean") as cleaner:
            assert cleaner.wait(60) == 0

    assert alive, f"it never ran: {said}"
    assert cleanup.leftovers(layout) == []
    assert _network_of_this_machine() == before


def _run_registry(cluster: Cluster, namespace: str, image: Image) -> None:
    objects = (tokens_secret(), deployment("registry", registry_pod(image("registry"))), service("registry", 8081))
    cluster.apply(*objects, namespace=namespace)
    try:
        cluster.kubectl("rollout", "status", f"-n={namespace}", "deployment/registry", "--timeout=100s", timeout_s=110)
    except CommandError as error:
        pytest.fail(f"{error}\n{cluster.explain(namespace)}")


def _command(name: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    command = [sys.executable, "-m", "tools.cluster", name]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)


def _network_of_this_machine() -> tuple[str, str]:
    """What a cluster could change of the network outside its namespace: forwarding, and interfaces of its kinds."""
    links = subprocess.run(
        ["ip", "-oneline", "link", "show", "type", "bridge"], capture_output=True, text=True, check=True
    )
    return Path("/proc/sys/net/ipv4/ip_forward").read_text(), links.stdout
