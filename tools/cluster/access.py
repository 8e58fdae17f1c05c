"""A Kubernetes as a user has it: a kubeconfig, kubectl and helm. The tests know nothing else of a cluster.

So they run on any: the one that `tools.cluster.node` makes, kind, or a cloud's. Pods are reached by port-forward,
never by an address that only exists inside.
"""

import json
import re
import selectors
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tools.kube_tools import KubeTools

__all__ = ["Cluster", "CommandError"]

CALL_TIMEOUT_S = 60.0
FORWARD_TIMEOUT_S = 30.0
# Deleting a namespace waits for its pods, which drain for as long as their grace lets them.
DELETE_TIMEOUT_S = 180.0
_POD_SECURITY = "pod-security.kubernetes.io"


class CommandError(Exception):
    """kubectl or helm refused; the message is what it said."""


@dataclass(frozen=True)
class Cluster:
    """A running Kubernetes that the bearer of a kubeconfig administers."""

    kubeconfig: Path
    tools: KubeTools

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """Run kubectl and return what it printed.

        Raises:
            CommandError: it failed.
        """
        return self._run([str(self.tools.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments], stdin, timeout_s)

    def helm(self, *arguments: str, major: Literal[3, 4] = 4, timeout_s: float = 600.0) -> str:
        """Run Helm and return what it printed.

        Raises:
            CommandError: it failed.
        """
        helm = self.tools.helm4 if major == 4 else self.tools.helm3
        return self._run([str(helm), f"--kubeconfig={self.kubeconfig}", *arguments], None, timeout_s)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object, or a list of them, as the API has it."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def apply(self, *documents: Mapping[str, Any], namespace: str = "default") -> None:
        """Apply objects on the server's side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", f"--namespace={namespace}", "--server-side", "--filename=-", stdin=json.dumps(listed))

    @contextmanager
    def namespace(self, purpose: str, *, pod_security: str = "restricted") -> Iterator[str]:
        """Yield a new namespace that enforces a Pod Security level; delete it, and wait for that, at the end."""
        name = f"{purpose}-{uuid.uuid4().hex[:8]}"
        labels = {f"{_POD_SECURITY}/enforce": pod_security, f"{_POD_SECURITY}/warn": pod_security}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            # Without it a pod is refused, and the controller manager makes it a moment later.
            self.kubectl("wait", f"--namespace={name}", "--for=create", "serviceaccount/default", "--timeout=60s")
            yield name
        finally:
            self.kubectl("delete", f"namespace/{name}", "--wait=true", timeout_s=DELETE_TIMEOUT_S)

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """Yield the base URL at which a pod's or a Service's port can be reached from here."""
        command = [str(self.tools.kubectl), f"--kubeconfig={self.kubeconfig}", f"--namespace={namespace}"]
        command += ["port-forward", "--address=127.0.0.1", target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                yield f"http://127.0.0.1:{_forwarded_port(process)}"
            finally:
                process.terminate()

    def eventually(self, look: Callable[[], bool], *, timeout_s: float, explain: Callable[[], str]) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: it did not in time; the message says what was seen instead.
        """
        deadline = time.monotonic() + timeout_s
        while not look():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:.0f} s: {explain()}")
            time.sleep(0.25)

    def explain(self, namespace: str) -> str:
        """Return what a person would look at first when something in a namespace is not as it should be."""
        pods = self.kubectl("get", "pods", f"--namespace={namespace}", "--output=wide")
        events = self.kubectl("get", "events", f"--namespace={namespace}", "--sort-by=.lastTimestamp")
        return f"{pods}\n{events[-4000:]}"

    def _run(self, command: list[str], stdin: str | None, timeout_s: float) -> str:
        done = subprocess.run(
            command, input=stdin or "", capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise CommandError(f"{' '.join(command[2:8])}: {(done.stderr or done.stdout).strip()[-3000:]}")
        return done.stdout.strip()


def _forwarded_port(process: "subprocess.Popen[bytes]") -> int:
    """Return the port that kubectl chose; it says so once it listens."""
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        deadline = time.monotonic() + FORWARD_TIMEOUT_S
        while selector.select(max(0.0, deadline - time.monotonic())):
            if not (chunk := process.stdout.read1(4096)):  # type: ignore[attr-defined]
                break
            said += chunk
            if found := re.search(rb"127\.0\.0\.1:(\d+) ->", said):
                return int(found.group(1))
    raise CommandError(f"port-forward did not start: {said.decode(errors='replace').strip()[-1000:]}")
