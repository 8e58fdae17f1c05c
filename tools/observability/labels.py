"""How many values each label may have: what bounds the number of series, written into the table and held by tests.

Words are counted in one process, which has its own routes and tasks. What grows does so with what somebody applied,
never with what somebody sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["LABELS", "Label", "bound"]


@dataclass(frozen=True, slots=True)
class Label:
    """One label.

    Attributes:
        what: its values.
        most: how many there may be in one process; None: as many as there are of what it names.
    """

    what: str
    most: int | None = None


LABELS: Mapping[str, Label] = {
    "model": Label("models that were applied, and not deleted"),
    "version": Label("versions of them that are loaded, or were within the hour"),
    "feature": Label("features of their schemas, and `prediction`"),
    "service": Label("the process's own name", 1),
    "method": Label("methods of HTTP and `other`; calls of the Open Inference Protocol", 12),
    "route": Label("templates of the process's routes, and `unmatched`", 64),
    "status": Label("statuses of HTTP", 32),
    "code": Label("status codes of gRPC", 17),
    "task": Label("background tasks of the process", 12),
    "reader": Label("drift, sink", 2),
    "lane": Label("pools of threads", 5),
    "stage": Label("parse, queue, predict, encode", 4),
    "role": Label("champion, candidate, shadow", 3),
    "outcome": Label("what became of it", 10),
    "reason": Label("why it was not done", 10),
    "decision": Label("what was decided", 8),
    "state": Label("states of a run or a rollout", 10),
    "kind": Label("kinds of rollout", 6),
    "severity": Label("low, high, critical", 3),
    "action": Label("actions of the operator", 4),
    "metric": Label("metrics that a manifest may name", 8),
}


def bound(labels: Iterable[str]) -> str:
    """Return how many series a metric may have in one process: its words multiplied, for each of what grows."""
    words, grows = 1, "model"
    many = False
    for name in labels:
        most = LABELS[name].most
        if most is None:
            many = True
            # A version and a feature are of a model already.
            grows = name if name != "model" else grows
        else:
            words *= most
    return f"{words:,} for each {grows}" if many else f"{words:,}"
