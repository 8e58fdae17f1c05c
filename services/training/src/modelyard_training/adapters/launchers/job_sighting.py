"""What a Job, its pod and the events about them say of an attempt: one pure function, in words of the supervisor.

The pod is asked first, since it knows the exit code and why; the Job is asked when its pod is gone. A reason that only
Kubernetes has a name for (OOMKilled, ImagePullBackOff) is said with that name and with what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from modelyard_training.adapters.launchers.endings import ending
from modelyard_training.adapters.launchers.job_manifest import ENDED_BY_US, SEALED
from modelyard_training.domain.supervision import Presence, Sighting

__all__ = ["sighting"]

Document = dict[str, Any]
Events = Callable[[str], Sequence[Document]]
"""Gives the events about the object with a uid, oldest first."""

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
# Longer than any grace period that a trainer gets: a pod that still is there has a node that does not answer.
_UNREACHABLE_AFTER = timedelta(seconds=120)
_MOST_CHARACTERS = 400


def sighting(job: Document, pods: Sequence[Document], events: Events, *, now: datetime, patience_s: float) -> Sighting:
    """Return how an attempt stands.

    Args:
        job: its Job.
        pods: its pods; more than one only when the cluster broke its word, then the newest counts.
        events: asked only about what has not started.
        now: the wall time.
        patience_s: how long a pod may fail to start.
    """
    meta = job["metadata"]
    if SEALED in meta.get("labels", {}):
        return Sighting(Presence.KILLED, detail="stopped before it was launched")
    if "deletionTimestamp" in meta:
        return Sighting(Presence.ENDED, reason="the training job is gone: somebody deleted its Job")
    pod = max(pods, key=lambda found: found["metadata"]["creationTimestamp"], default=None)
    if pod is not None and (ended := _ended(pod)) is not None:
        return ended
    if (finished := _finished(job)) is not None and (pod is None or _unreachable(pod, now)):
        return finished
    if pod is not None and (pod.get("status", {}).get("phase") == "Running" or "deletionTimestamp" in pod["metadata"]):
        return Sighting(Presence.ALIVE)
    hopeless, why = _waiting(job, pod, events)
    if why and (hopeless or now >= _time(meta["creationTimestamp"]) + timedelta(seconds=patience_s)):
        return Sighting(Presence.STUCK, reason=why[:_MOST_CHARACTERS])
    return Sighting(Presence.ALIVE, detail=why[:_MOST_CHARACTERS])


def _ended(pod: Document) -> Sighting | None:
    """Return how a pod's container ended; None while it has not."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    terminated = containers[0].get("state", {}).get("terminated") if containers else None
    if status.get("phase") == "Failed" and status.get("reason") == "Evicted":
        said = str(status.get("message", "evicted"))
        if "exceeds" in said:
            return Sighting(Presence.ENDED, reason=f"the training job was evicted for what it used: {said}")
        return Sighting(Presence.KILLED, detail=f"evicted: {said}")
    if terminated is None:
        if status.get("phase") == "Failed":
            return Sighting(Presence.KILLED, detail=str(status.get("reason") or "its pod failed without a result"))
        return None
    code, reason = int(terminated.get("exitCode", 1)), terminated.get("reason")
    if reason == "OOMKilled":
        return Sighting(Presence.ENDED, code, "OOMKilled", _out_of_memory(pod))
    if reason in ("StartError", "ContainerCannotRun"):
        said = terminated.get("message", "no reason given")
        return Sighting(Presence.ENDED, code, reason, f"the training job could not be started ({reason}): {said}")
    return ending(code)


def _out_of_memory(pod: Document) -> str:
    limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "its limit")
    return (
        f"the training job ran out of memory (OOMKilled) at {limit}: "
        "raise spec.train.resources.memory, or learn from fewer rows"
    )


def _finished(job: Document) -> Sighting | None:
    """Return how a Job ended whose pod cannot tell."""
    found = {c["type"]: c for c in job.get("status", {}).get("conditions", []) if c.get("status") == "True"}
    if "Complete" in found:
        return Sighting(Presence.ENDED, 0)
    failed = found.get("Failed") or found.get("FailureTarget")
    if failed is None:
        return None
    if ENDED_BY_US in job["metadata"].get("annotations", {}):
        return Sighting(Presence.KILLED, detail="stopped")
    if failed.get("reason") == "DeadlineExceeded":
        return Sighting(Presence.OVERDUE, detail="DeadlineExceeded")
    return Sighting(Presence.KILLED, detail="its pod was deleted, or its node was lost")


def _unreachable(pod: Document, now: datetime) -> bool:
    deleted = pod["metadata"].get("deletionTimestamp")
    return deleted is not None and now >= _time(deleted) + _UNREACHABLE_AFTER


def _waiting(job: Document, pod: Document | None, events: Events) -> tuple[bool, str]:
    """Return what an attempt that has not started waits for, and whether that can never come."""
    if pod is None:
        return False, _said(events(job["metadata"]["uid"]), "the cluster makes no pod for it", "FailedCreate")
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    waiting = containers[0].get("state", {}).get("waiting", {}) if containers else {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    image = pod["spec"]["containers"][0]["image"]
    if reason in _IMAGE:
        return reason in _HOPELESS, f"the image {image} cannot be pulled ({reason}): {message}"
    if reason not in ("", "ContainerCreating", "PodInitializing"):
        return False, f"the training job cannot be started ({reason}): {message}"
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = condition.get("message", "")
            return False, f"the training job cannot be scheduled ({condition.get('reason', 'Unschedulable')}): {said}"
    known = ("FailedMount", "FailedCreatePodSandBox", "FailedAttachVolume")
    return False, _said(events(pod["metadata"]["uid"]), "the training job cannot be started", *known)


def _said(events: Sequence[Document], what: str, *reasons: str) -> str:
    for event in reversed(events):
        if event.get("reason") in reasons:
            return f"{what} ({event['reason']}): {event.get('message', '')}"
    return ""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
