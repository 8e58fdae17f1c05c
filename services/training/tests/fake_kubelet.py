"""What a cluster does to Jobs, over a fake API server: makes pods, runs their containers as processes, ends them.

Job controller and kubelet in one thread that looks at the objects again and again. Containers are real processes of
this machine, with the pod's environment and its volumes as folders; what they are killed with, print and leave behind
is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard_common.testing.api_server import ApiServer, Refusal

Document = dict[str, Any]
NOWHERE = "/dev/termination-log"


@dataclass
class Container:
    """The process of one pod."""

    process: subprocess.Popen[bytes]
    folder: Path
    job: str
    grace_s: float
    termed_at: float | None = None

    def stop(self) -> None:
        """Send SIGTERM once, and SIGKILL after the grace period."""
        if self.termed_at is None:
            self.termed_at = time.monotonic()
            self.process.terminate()
        elif time.monotonic() >= self.termed_at + self.grace_s:
            self.process.kill()


@dataclass
class FakeKubelet:
    """The thread."""

    server: ApiServer
    root: Path
    containers: dict[str, Container] = field(default_factory=dict)
    paused: bool = False
    """Pods are made and not started."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self.server.log_of = self.log_of
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and every container."""
        self._stop.set()
        self._thread.join(10)
        for container in self.containers.values():
            container.process.kill()
            container.process.wait(10)

    def starts(self, run: str) -> int:
        """Return how many containers of a run really started."""
        return sum(len(path.read_text().splitlines()) for path in self.root.glob(f"{run}-*/starts"))

    def crash(self, run: str) -> None:
        """Let the pods of a run vanish, with their node."""
        for pod in self.server.all("pods", **{"modelyard.dev/run": run}):
            container = self.containers[pod["metadata"]["name"]]
            if container.process.poll() is None:
                self.server.remove("pods", pod["metadata"]["name"])
                container.process.kill()

    def log_of(self, pod: str) -> bytes:
        """Return what a pod's container wrote."""
        path = self.root / pod / "log"
        return path.read_bytes() if path.exists() else b""

    def _loop(self) -> None:
        while not self._stop.wait(0.01):
            for job in self.server.all("jobs"):
                with suppress(Refusal):
                    self._look(job)

    def _look(self, job: Document) -> None:
        name = job["metadata"]["name"]
        if job.get("status", {}).get("conditions"):
            return
        if job["spec"]["completions"] == 0:
            self._finish(name, "Complete", "")
            return
        container = next((found for found in self.containers.values() if found.job == name), None)
        if container is None:
            if not self.paused:
                self._start(job)
            return
        pod = container.folder.name
        if self._overdue(job):
            container.stop()
            if container.process.poll() is not None:
                self.server.remove("pods", pod)
                self._finish(name, "Failed", "DeadlineExceeded")
        elif container.process.poll() is not None:
            self._ended(name, pod, container)

    def _ended(self, job: str, pod: str, container: Container) -> None:
        code = container.process.returncode
        left = container.folder / "termination"
        terminated = {"exitCode": code if code >= 0 else 128 - code, "reason": "Error" if code else "Completed"}
        if left.exists():
            terminated["message"] = left.read_text()[-4096:]
        with suppress(Refusal):
            status = {"phase": "Failed" if code else "Succeeded"}
            status["containerStatuses"] = [{"name": "trainer", "state": {"terminated": terminated}}]  # type: ignore[assignment]
            self.server.modify("pods", pod, {"status": status}, sub="status")
        self._finish(job, "Failed" if code else "Complete", "BackoffLimitExceeded" if code else "")

    def _finish(self, name: str, kind: str, reason: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason}
        self.server.modify("jobs", name, {"status": {"conditions": [condition]}}, sub="status")

    @staticmethod
    def _overdue(job: Document) -> bool:
        started = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        return (datetime.now(UTC) - started).total_seconds() >= job["spec"]["activeDeadlineSeconds"]

    def _start(self, job: Document) -> None:
        template = job["spec"]["template"]
        pod = self.server.create(
            "pods",
            {
                "metadata": {**template["metadata"], "generateName": f"{job['metadata']['name']}-"},
                "spec": template["spec"],
                "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}}]},
            },
        )
        name = pod["metadata"]["name"]
        self.containers[name] = self._run(pod, self.root / name, job["metadata"]["name"])

    def _run(self, pod: Document, folder: Path, job: str) -> Container:
        spec = pod["spec"]["containers"][0]
        folders = {mount["mountPath"]: folder / mount["name"] for mount in spec["volumeMounts"]}
        for path in folders.values():
            path.mkdir(parents=True)

        def here(text: str) -> str:
            for inside, outside in folders.items():
                text = text.replace(inside, str(outside)) if inside.startswith("/modelyard/") else text
            return text.replace(NOWHERE, str(folder / "termination"))

        document = pod["metadata"]["annotations"]["modelyard.dev/job"]
        (folder / "job" / "job.json").write_text(here(document))
        environment = {entry["name"]: here(entry["value"]) for entry in spec["env"]} | {"PATH": os.environ["PATH"]}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [here(word) for word in (*spec["command"], *spec["args"])],
                cwd=folder / "work",
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        assert json.loads(document)["work_dir"] in folders
        return Container(process, folder, job, pod["spec"]["terminationGracePeriodSeconds"])
