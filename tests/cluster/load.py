"""Load from inside the cluster, through the Service, as an application makes it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.installation import PORTS, RELEASE, Installation
from tests.cluster.pods import job
from tools.cluster.access import CommandError

__all__ = ["Load", "load"]

CODE = Path(__file__).with_name("load_client.py").read_text()
STOP = "import os, signal; os.kill(1, signal.SIGTERM)"
STARTED_S, STOPPED_S = 90, 60


@dataclass
class Load:
    """What became of the requests; known when the block has ended.

    Attributes:
        answered: how many answers came from each version.
        failures: what a request got instead, and when.
    """

    answered: dict[str, int]
    failures: list[str]

    @property
    def total(self) -> int:
        """Requests that were answered."""
        return sum(self.answered.values())


@contextmanager
def load(
    platform: Installation, image: str, model: str, body: dict[str, Any], *, connections: int = 4, pause_s: float = 0.02
) -> Iterator[Load]:
    """Ask a model for as long as the block takes."""
    name, found = f"load-{uuid.uuid4().hex[:8]}", Load({}, [])
    words = (f"{RELEASE}-inference", str(PORTS["inference"]), f"/v2/models/{model}/infer", platform.tokens["client"])
    client = job(name, image, CODE, (*words, json.dumps(body), str(connections), str(pause_s)))
    # Where network policies are enforced, this label is let in.
    client["spec"]["template"]["metadata"] = {"labels": {"app": "load"}}
    platform.cluster.apply(client, namespace=platform.namespace)
    platform.kubectl("wait", "--for=jsonpath={.status.ready}=1", f"job/{name}", f"--timeout={STARTED_S}s", timeout_s=99)
    yield found
    # The process that tells it may end with it, before it can say that it was done.
    with suppress(CommandError):
        platform.kubectl("exec", f"job/{name}", "--", "python", "-c", STOP)
    platform.kubectl("wait", "--for=condition=complete", f"job/{name}", f"--timeout={STOPPED_S}s", timeout_s=70)
    said = json.loads(platform.kubectl("logs", f"job/{name}").splitlines()[-1])
    found.answered, found.failures = said["answered"], said["failures"]
    platform.kubectl("delete", f"job/{name}")
