"""Launches jobs as Kubernetes Jobs, and finds them again by their names whoever launched them.

An attempt's Job has a name made of run and attempt, so that a second launch is AlreadyExists, which is success. To end
an attempt its deadline is moved to now: the Job stays as a record under its name, its pod gets SIGTERM and after the
grace period SIGKILL, and the cluster removes the record in time. So training needs to create and change Jobs and to
read pods, logs and events, and no right to delete anything.

A pod's log goes with the pod; it is kept in a folder before that. With several replicas and no shared folder the log
of a run that is long over may be known to one of them only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard_common.clock import Clock
from modelyard_common.cluster import Cluster, Document
from modelyard_common.errors import Conflict, Invalid, ModelyardError, NotFound, Unavailable

from modelyard_training.adapters.launchers.job_manifest import (
    ENDED_BY_US,
    JobTemplate,
    attempt_labels,
    job_manifest,
    job_name,
    seal_manifest,
)
from modelyard_training.adapters.launchers.job_sighting import sighting
from modelyard_training.adapters.launchers.log_pages import page
from modelyard_training.domain.ports import Job, LogPage
from modelyard_training.domain.supervision import Presence, Sighting

__all__ = ["KubernetesLauncher"]

# Kubelets rotate a container's log at 10 MiB; more is never had in one piece.
_MOST_LOG_BYTES = 16 * 2**20


class KubernetesLauncher:
    """Starts a Job for each attempt.

    Args:
        cluster: where.
        namespace: of the Jobs.
        template: what all Jobs have in common.
        logs: a folder for the logs of pods that are gone.
        clock: for how long a pod has failed to start.
        patience_s: after which that ends the run.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        template: JobTemplate,
        logs: Path,
        clock: Clock,
        patience_s: float,
    ) -> None:
        self._cluster = cluster
        self._template = template
        self._logs = logs.absolute()
        self._clock = clock
        self._patience_s = patience_s
        self._namespace = namespace
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._core = f"/api/v1/namespaces/{namespace}"

    def launch(self, job: Job) -> None:
        """Create the Job of an attempt; see the port."""
        self._create(job_manifest(job, self._template))

    def sight(self, run: str, attempt: int) -> Sighting:
        """Return how an attempt stands; see the port."""
        job = self._job(run, attempt)
        if job is None:
            return Sighting(Presence.ABSENT)
        pods = self._pods(run, attempt)
        return sighting(job, pods, self._events, now=self._clock.now(), patience_s=self._patience_s)

    def terminate(self, run: str, attempt: int) -> None:
        """Have the pod sent SIGTERM; see the port."""
        job = self._job(run, attempt)
        if job is not None:
            self._end(run, attempt, job)

    def kill(self, run: str, attempt: int) -> None:
        """End an attempt (SIGKILL follows SIGTERM after the pod's grace period), or seal its name; see the port."""
        job = self._job(run, attempt)
        if job is None:
            self._create(seal_manifest(run, attempt, self._template))
            # Somebody may have launched it between the two calls.
            job = self._cluster.get(f"{self._jobs}/{job_name(run, attempt)}")
        self._end(run, attempt, job)

    def result(self, run: str, attempt: int) -> Mapping[str, Any] | None:
        """Return the report that an attempt left in its termination message; see the port."""
        for pod in self._pods(run, attempt):
            for container in pod.get("status", {}).get("containerStatuses", []):
                message = container.get("state", {}).get("terminated", {}).get("message", "")
                try:
                    document = json.loads(message)
                except ValueError:
                    continue
                if isinstance(document, dict):
                    return document
        return None

    def log(self, run: str, *, offset: int = 0, limit_bytes: int = 1 << 20) -> LogPage:
        """Return a piece of what the attempts wrote; see the port."""
        whole = b"".join(self._logs_of(run).values())
        if not whole:
            return LogPage("", max(0, offset))
        start = max(0, len(whole) + offset) if offset < 0 else min(offset, len(whole))
        return page(whole[start : start + limit_bytes], start, from_end=offset < 0)

    def tidy(self, run: str) -> None:
        """Keep the log; the Jobs go by themselves, after their time to live."""
        for attempt, text in self._logs_of(run).items():
            self._keep_log(run, attempt, text)

    def check(self) -> str | None:
        """Return what keeps Jobs from being made; see the port."""
        try:
            self._cluster.get(self._jobs, limit=1)
        except ModelyardError as exc:
            return f"Jobs in namespace {self._namespace} cannot be asked for: {exc.message}"
        return None

    def _create(self, manifest: Document) -> None:
        try:
            self._cluster.create(self._jobs, manifest)
        except Conflict:
            return
        except NotFound as exc:
            raise Invalid(f"the namespace {self._namespace} does not exist") from exc

    def _job(self, run: str, attempt: int) -> Document | None:
        try:
            return self._cluster.get(f"{self._jobs}/{job_name(run, attempt)}")
        except NotFound:
            return None

    def _pods(self, run: str, attempt: int | None = None) -> Sequence[Document]:
        labels = attempt_labels(run, attempt or 0)
        if attempt is None:
            del labels["modelyard.dev/attempt"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods: list[Document] = self._cluster.get(f"{self._core}/pods", labelSelector=selector)["items"]
        return pods

    def _events(self, uid: str) -> Sequence[Document]:
        found = self._cluster.get(f"{self._core}/events", fieldSelector=f"involvedObject.uid={uid}", limit=100)["items"]
        events = [event for event in found if event.get("involvedObject", {}).get("uid") == uid]
        return sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def _end(self, run: str, attempt: int, job: Document) -> None:
        """Move the deadline of a Job that has not finished to now; its pod and its log go with that."""
        if any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", [])):
            return
        for number, text in self._logs_of(run).items():
            if number == attempt:
                self._keep_log(run, attempt, text)
        if ENDED_BY_US not in job["metadata"].get("annotations", {}):
            patch = {"metadata": {"annotations": {ENDED_BY_US: "training"}}, "spec": {"activeDeadlineSeconds": 1}}
            self._cluster.patch(f"{self._jobs}/{job_name(run, attempt)}", patch)

    def _logs_of(self, run: str) -> dict[int, bytes]:
        """Return the logs of a run by attempt: of the pods that are there, else as they were kept."""
        job_name(run, 1)  # refuses a name that leads elsewhere
        kept = {int(path.stem): path.read_bytes() for path in (self._logs / run).glob("[0-9]*.log")}
        for pod in self._pods(run):
            attempt = int(pod["metadata"]["labels"]["modelyard.dev/attempt"])
            text = self._log_of(pod["metadata"]["name"])
            if len(text) >= len(kept.get(attempt, b"")):
                kept[attempt] = text
        return dict(sorted(kept.items()))

    def _log_of(self, pod: str) -> bytes:
        try:
            return self._cluster.text(f"{self._core}/pods/{pod}/log", limitBytes=_MOST_LOG_BYTES)
        except (NotFound, Invalid):  # gone meanwhile, or its container waits to be started
            return b""

    def _keep_log(self, run: str, attempt: int, text: bytes) -> None:
        path = self._logs / run / f"{attempt}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_suffix(".part")
            part.write_bytes(text)
            part.replace(path)
        except OSError as exc:
            raise Unavailable(f"the log of {run} cannot be kept: {exc.strerror}") from exc
