"""Runs the calls of one client against one server and prints how each went, as one JSON object.

Every client is a process of its own, with an interpreter of its own: two of them define the same protobuf messages
and cannot be imported together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Where the server is. It serves the model ``power``, version 1: load and price are numbers, day is a text."""

    http: str
    grpc: str

    @property
    def url(self) -> str:
        """The address as browsers write it."""
        return f"http://{self.http}"


Call = Callable[[Stage], None]


def expect(condition: object, what: object = "") -> None:
    """Raise unless a condition holds."""
    if not condition:
        raise AssertionError(f"not as expected: {what}")


def run(calls: Sequence[Call]) -> None:
    """Make each call; print its sentence and what went wrong, or null."""
    stage = Stage(*sys.argv[1:3])
    results: dict[str, str | None] = {}
    for call in calls:
        sentence = call.__name__.replace("_", " ").strip()
        try:
            call(stage)
        except BaseException as exc:
            results[sentence] = f"{type(exc).__name__}: {exc}"[:500]
        else:
            results[sentence] = None
    print(json.dumps(results))  # noqa: T201  # its answer
