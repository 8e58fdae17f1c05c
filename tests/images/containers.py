"""A container as a hardened cluster would run it, for the time of a block, and how to ask it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from modelyard_common.auth.tokens import hash_token
from modelyard_common.testing import free_port

from tools.images.catalog import USER, Image
from tools.images.engine import Engine

HARDENED = (
    "--read-only",
    f"--user={USER}",
    "--tmpfs=/tmp:rw,noexec,nosuid,size=64m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
TIMEOUT_S = 90.0
T = TypeVar("T")


@contextmanager
def serving(engine: Engine, image: Image, tag: str, secrets: Path, *options: str) -> Iterator[tuple[str, str]]:
    """Run an image on loopback with a token file mounted; yield its container's id and its base URL."""
    port = free_port()
    tokens = secrets / "tokens"
    tokens.write_text(f"test admin {hash_token('a-token-of-this-test')}\n")
    secrets.chmod(0o755)
    variables = {"PORT": str(port), "HOST": "127.0.0.1", "TOKENS_FILE": "/etc/modelyard/tokens"}
    settings = [f"--env={image.env_prefix}{name}={value}" for name, value in variables.items()]
    mount = f"--volume={secrets}:/etc/modelyard:ro"
    container = engine.run("run", "--detach", "--network=host", *HARDENED, mount, *settings, *options, tag)
    try:
        yield container, f"http://127.0.0.1:{port}"
    finally:
        engine.run("rm", "--force", "--volumes", container)


def await_answer(engine: Engine, container: str, url: str) -> httpx.Response:
    """Return the first answer of a URL; fail with the container's log when none comes in time."""

    def ask() -> httpx.Response | None:
        try:
            return httpx.get(url, timeout=5.0)
        except httpx.TransportError:
            return None

    return eventually(ask, lambda: engine.run("logs", container))


def eventually(look: Callable[[], T | None], explain: Callable[[], str]) -> T:
    """Return what a look finds, once it finds something."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing within {TIMEOUT_S:.0f} s: {explain()}")
