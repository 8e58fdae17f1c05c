"""Health with named checks. Live: the process runs. Ready: it can do its job. Startup: it has begun to.

A check that is not critical is shown and does not make the service unready: a peer that is away is a fact,
not a reason to take this service out of the load balancer as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Check", "Health", "HealthReport"]


@dataclass(frozen=True, slots=True)
class Check:
    """One named check: returns None when all is well, or a sentence about what is not."""

    name: str
    run: Callable[[], str | None]
    critical: bool


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What the checks found."""

    ready: bool
    checks: dict[str, str]
    """Name to ``ok``, or to the sentence."""


class Health:
    """The checks of one service."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self._started = threading.Event()
        self._draining = threading.Event()

    def add(self, name: str, check: Callable[[], str | None], *, critical: bool) -> None:
        """Add a check; critical ones decide readiness."""
        self._checks.append(Check(name, check, critical))

    def started(self) -> None:
        """Say that start-up is over."""
        self._started.set()

    def drain(self) -> None:
        """Say that this process will stop: unready from now on, whatever the checks say."""
        self._draining.set()

    @property
    def is_started(self) -> bool:
        """Whether start-up is over."""
        return self._started.is_set()

    @property
    def is_draining(self) -> bool:
        """Whether this process is about to stop."""
        return self._draining.is_set()

    def report(self) -> HealthReport:
        """Run all checks."""
        ready = self.is_started and not self.is_draining
        found: dict[str, str] = {}
        for check in self._checks:
            try:
                sentence = check.run()
            except Exception as exc:
                sentence = f"the check failed: {type(exc).__name__}"
            found[check.name] = sentence or "ok"
            if sentence is not None and check.critical:
                ready = False
        if self.is_draining:
            found["draining"] = "this process is about to stop"
        return HealthReport(ready, found)
