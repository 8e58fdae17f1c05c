"""What the launchers' suite knows of each kind of launcher: how to make one, count its starts, lose its jobs."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from fake_kubelet import FakeKubelet
from kubernetes import client, config
from modelyard_common.clock import SystemClock
from modelyard_common.cluster import Cluster
from modelyard_common.testing.api_server import ApiServer, kubeconfig_of
from modelyard_training.adapters.launchers.job_manifest import JobTemplate
from modelyard_training.adapters.launchers.kubernetes import KubernetesLauncher
from modelyard_training.adapters.launchers.local import LocalLauncher
from modelyard_training.domain.ports import Job, Launcher
from modelyard_training.domain.supervision import Presence, Sighting


class Kit(Protocol):
    """What the suite needs to know of a launcher besides the port."""

    def make(self) -> Launcher:
        """Return a launcher as a service has it that was just started on the same machine."""

    def starts(self, run: str) -> int:
        """Return how often jobs of a run have really started."""

    def crash(self, run: str) -> None:
        """Let the running processes of a run vanish."""

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        """Wait until an attempt is found so."""


class LocalKit:
    """Real processes of this machine."""

    def __init__(self, root: Path, end_jobs: Callable[[Path], None]) -> None:
        self.root = root
        self.end_jobs = end_jobs

    def make(self) -> LocalLauncher:
        command = [sys.executable, "-S", str(Path(__file__).with_name("fake_job.py"))]
        return LocalLauncher(self.root, command=command, environment={"PATH": os.environ["PATH"]})

    def starts(self, run: str) -> int:
        path = self.root / run / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def crash(self, run: str) -> None:
        self.end_jobs(self.root)

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        deadline = time.monotonic() + 20
        while (seen := launcher.sight(run, attempt)).presence is not presence or self._starting(run, seen):
            assert time.monotonic() < deadline, f"still {seen}"
            time.sleep(0.01)
        return seen

    def _starting(self, run: str, seen: Sighting) -> bool:
        return seen.presence is Presence.ALIVE and self.starts(run) == 0

    def close(self) -> None:
        self.end_jobs(self.root)


class _ClusterKit:
    """A Kubernetes launcher over some API server."""

    grace_s, patience_s = 1.0, 600.0

    def __init__(self, kubeconfig: Path, namespace: str, template: JobTemplate, logs: Path) -> None:
        self.clusters: list[Cluster] = []
        self.kubeconfig, self.namespace, self.template, self.logs = kubeconfig, namespace, template, logs

    def make(self) -> KubernetesLauncher:
        self.clusters.append(Cluster.connect(self.kubeconfig))
        return KubernetesLauncher(
            self.clusters[-1],
            namespace=self.namespace,
            template=self.template,
            logs=self.logs,
            clock=SystemClock(),
            patience_s=self.patience_s,
        )

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        deadline = time.monotonic() + 60
        while (seen := launcher.sight(run, attempt)).presence is not presence or self._starting(run, seen):
            assert time.monotonic() < deadline, f"still {seen}"
            time.sleep(0.02)
        return seen

    def _starting(self, run: str, seen: Sighting) -> bool:
        return seen.presence is Presence.ALIVE and self.starts(run) == 0

    def starts(self, run: str) -> int:
        raise NotImplementedError

    def close(self) -> None:
        for cluster in self.clusters:
            cluster.close()


class FakeClusterKit(_ClusterKit):
    """A fake API server on a real socket, and containers that are processes of this machine."""

    def __init__(self, folder: Path, serve: Callable[[ApiServer], str]) -> None:
        server = ApiServer()
        command = (sys.executable, "-S", str(Path(__file__).with_name("fake_job.py")))
        template = JobTemplate(image="trainer", command=command, grace_s=self.grace_s)
        super().__init__(kubeconfig_of(folder, serve(server)), "default", template, folder / "logs")
        self.kubelet = FakeKubelet(server, folder / "pods")

    def starts(self, run: str) -> int:
        return self.kubelet.starts(run)

    def crash(self, run: str) -> None:
        self.kubelet.crash(run)

    def close(self) -> None:
        self.kubelet.close()
        super().close()


class RealClusterKit(_ClusterKit):
    """The cluster of KUBECONFIG; each test gets a namespace that enforces restricted pods."""

    def __init__(self, kubeconfig: Path, folder: Path, **changes: Any) -> None:
        source = Path(__file__).with_name("fake_job.py").read_text()
        template = JobTemplate(
            image=os.environ.get("MODELYARD_TEST_JOB_IMAGE", "docker.io/library/python:3.11-slim"),
            command=("python3", "-c", source),
            grace_s=self.grace_s,
        )
        template = replace(template, **changes)
        config.load_kube_config(str(kubeconfig))
        self.core, self.batch = client.CoreV1Api(), client.BatchV1Api()
        namespace = f"launcher-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": namespace, "labels": labels}})
        super().__init__(kubeconfig, namespace, template, folder / "logs")

    def _pods(self, run: str) -> list[Any]:
        pods: list[Any] = self.core.list_namespaced_pod(self.namespace, label_selector=f"modelyard.dev/run={run}").items
        return pods

    def starts(self, run: str) -> int:
        """Count the pods that Jobs ever had, those that are gone and those that the controller has yet to count."""
        jobs = self.batch.list_namespaced_job(self.namespace, label_selector=f"modelyard.dev/run={run}").items
        count = 0
        for status in (found.status for found in jobs):
            waiting = status.uncounted_terminated_pods
            uncounted = [*(waiting.succeeded or ()), *(waiting.failed or ())] if waiting else []
            count += (status.active or 0) + (status.succeeded or 0) + (status.failed or 0) + len(uncounted)
        return count

    def _starting(self, run: str, seen: Sighting) -> bool:
        return seen.presence is Presence.ALIVE and not any(pod.status.phase == "Running" for pod in self._pods(run))

    def crash(self, run: str) -> None:
        for pod in self._pods(run):
            if pod.status.phase == "Running":
                self.core.delete_namespaced_pod(pod.metadata.name, self.namespace, grace_period_seconds=0)

    def close(self) -> None:
        self.core.delete_namespace(self.namespace)
        self.core.api_client.close()
        self.batch.api_client.close()
        super().close()


class MemoryKit:
    """The fake, acting out what jobs are told to do."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        launch = fake.launch

        def act(job: Job) -> None:
            before = len(fake.launches)
            launch(job)
            behaviour = job.document["spec"]["behaviour"]
            if len(fake.launches) == before:
                return
            fake.logs[job.run] = fake.logs.get(job.run, "") + behaviour.get("say", f"hello from {job.run}") + "\n"
            fake.obedient = behaviour["kind"] != "stubborn"
            if behaviour["kind"] == "end":
                fake.end(job.run, job.attempt, code=behaviour.get("code", 0))
            if behaviour["kind"] == "result":
                fake.results[job.run, job.attempt] = behaviour["report"]
                fake.end(job.run, job.attempt, code=1)

        fake.launch = act

    def make(self) -> Launcher:
        launcher: Launcher = self.fake
        return launcher

    def starts(self, run: str) -> int:
        return sum(launched == run for launched, _ in self.fake.launches)

    def crash(self, run: str) -> None:
        for key, seen in list(self.fake.sightings.items()):
            if key[0] == run and seen.presence is Presence.ALIVE:
                self.fake.lose(*key)

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        seen = launcher.sight(run, attempt)
        assert seen.presence is presence
        return seen

    def close(self) -> None:
        """Nothing is left behind."""
