"""One Kubernetes for the whole session, and a namespace for each test.

KUBECONFIG names a cluster of yours; without it one is made on this machine, in a network of its own, and removed at
the end, also when a test failed or the start itself did.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from modelyard_cli.demo.stream import Stream, find_example, load_stream
from modelyard_client import Modelyard
from modelyard_common.testing.required import unavailable

from tests.cluster.installation import Installation, database_objects, image_values, secrets_of, volumes
from tests.cluster.managed_model import MODEL
from tests.images.others import OTHERS, build_other
from tools import kube_tools
from tools.charts.build import build
from tools.cluster import binaries, node
from tools.cluster.access import Cluster
from tools.cluster.errors import CannotRun
from tools.images.build import Built
from tools.images.engine import Engine

# Enough of the stream for a drift, a run, and a rollout through both steps.
ROWS = 1300
CLAIMS = {"data-modelyard-training-0": "1Gi", "data-modelyard-mlflow-0": "1Gi"}


@dataclass(frozen=True)
class Place:
    """The session's cluster, and its node where it is our own."""

    cluster: Cluster
    node: node.Node | None


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """The cluster of KUBECONFIG, else one made for this session."""
    tools = kube_tools.ensure()
    if given := os.environ.get("KUBECONFIG"):
        yield Place(Cluster(Path(given), tools), None)
        return
    try:
        node.require_machine()
        made = node.start(binaries.ensure())
    except CannotRun as reason:
        unavailable(f"no cluster here: {reason}")
    try:
        yield Place(Cluster(made.layout.kubeconfig, tools), made)
    finally:
        made.stop()


@pytest.fixture(scope="session")
def cluster(place: Place) -> Cluster:
    """What a test needs of a cluster."""
    return place.cluster


@pytest.fixture(scope="session", autouse=True)
def handed_over(place: Place, image: Callable[[str], str]) -> Iterator[None]:
    """Name the cluster to the tests that live with their services, which take it from the environment.

    They come after these (`make test-cluster` says the order), and need an image with Python for their Jobs.
    """
    given = {"KUBECONFIG": str(place.cluster.kubeconfig)}
    if place.node is not None:
        given["MODELYARD_TEST_JOB_IMAGE"] = image("registry")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in given.items():
            environment.setenv(name, value)
        yield


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that refuses every pod which is not restricted."""
    with cluster.namespace("test") as name:
        yield name


@pytest.fixture(scope="session")
def image(
    place: Place, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Return the name of an image that the cluster has: built from this checkout and loaded into the node.

    A cluster of KUBECONFIG gets its images from whoever made it; MODELYARD_TEST_IMAGES says under which names, with
    `{package}` for the service, for example `registry.example/modelyard/{package}:dev`.
    """
    loaded: dict[str, str] = {}

    def load_once(package: str) -> str:
        if place.node is None:
            names = os.environ.get("MODELYARD_TEST_IMAGES", "modelyard/{package}:dev")
            return names.format(package=package)
        if package not in loaded:
            engine: Engine = request.getfixturevalue("engine")
            if package in OTHERS:
                tag = build_other(engine, package, base=request.getfixturevalue("base_image"))
            else:
                build: Callable[[str], Built] = request.getfixturevalue("built")
                tag = build(package).tag
            archive = tmp_path_factory.mktemp("images") / f"{package}.tar"
            engine.run("save", "--output", str(archive), tag)
            place.node.load_archive(archive)
            archive.unlink()
            loaded[package] = tag
        return loaded[package]

    return load_once


@pytest.fixture(scope="session")
def platform(
    place: Place, image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The whole platform, installed and ready: one release, whose life the modules test_platform_* follow in order.

    An install is expensive on two cores. What a module finds is what the one before it left.
    """
    cluster, scratch = place.cluster, tmp_path_factory.mktemp("platform")
    charts = build(scratch / "charts", cluster.tools.helm4)
    values = scratch / "values.json"
    values.write_text(json.dumps(image_values(image)))
    with cluster.namespace("platform") as namespace:
        tokens, secrets = secrets_of(namespace)
        cluster.apply(*secrets, *database_objects(image("postgresql")), namespace=namespace)
        lent = volumes(place.node.layout.root / "lent", namespace, CLAIMS) if place.node is not None else []
        cluster.apply(*lent)
        cluster.kubectl("rollout", "status", f"-n={namespace}", "deployment/postgresql", "--timeout=50s")
        release = Installation(cluster, namespace, charts, values, tokens, scratch)
        try:
            release.install()
            yield release
        finally:
            release.let_go()
    for volume in lent:
        cluster.kubectl("delete", f"persistentvolume/{volume['metadata']['name']}")


@pytest.fixture(scope="module")
def client(platform: Installation) -> Iterator[Modelyard]:
    """The platform as an administrator reaches it."""
    with platform.client() as clients:
        yield clients


@pytest.fixture(scope="session")
def stream() -> Stream:
    """The beginning of the example's recorded stream."""
    return load_stream(find_example(MODEL), None, ROWS)
