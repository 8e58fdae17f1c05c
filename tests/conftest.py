"""What the tests of deployment share: pinned tools, one engine and one build of each image for the whole session.

Where such a thing cannot be had the tests are skipped with the reason. CI sets MODELYARD_REQUIRE_CLUSTER=1, which turns
the skip into a failure, so that it never hides a broken cluster.
"""

from collections.abc import Callable, Iterator

import pytest
from modelyard_common.testing.required import unavailable

from tools import kube_tools
from tools.images.base import cache_dir, ensure_base
from tools.images.build import Built, build
from tools.images.catalog import IMAGES
from tools.images.engine import Engine, EngineError, docker


@pytest.fixture(scope="session")
def tools() -> kube_tools.KubeTools:
    """Helm 3, Helm 4 and kubectl."""
    try:
        return kube_tools.ensure()
    except kube_tools.KubeToolsError as error:
        unavailable(f"Helm cannot be had: {error}")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Docker: the one that runs here, else one of the session's own."""
    running = docker(cache_dir() / "docker")
    try:
        found = running.__enter__()
    except EngineError as error:
        unavailable(str(error))
    try:
        yield found
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """The name of the base that all images are built on."""
    try:
        return ensure_base(engine)
    except EngineError as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def built(engine: Engine, base_image: str) -> Callable[[str], Built]:
    """Build an image of this checkout, once a session; unchanged layers come from the engine's cache."""
    images: dict[str, Built] = {}

    def build_once(package: str) -> Built:
        if package not in images:
            images[package] = build(engine, IMAGES[package], base=base_image)
        return images[package]

    return build_once
