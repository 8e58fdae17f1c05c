"""Holding the stream while the platform thinks: the result must not depend on how fast this machine is.

In the world a half-hour lies between two rows, and a run is over before the next one comes. Here the stream waits
until drift has seen what was sent, rows and labels, no command is on its way, no run is at work, and inference serves
what the registry last decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modelyard_client import Modelyard
from modelyard_common.errors import ModelyardError, NotFound, Unavailable
from modelyard_contracts.drift_v1 import Comparison
from modelyard_contracts.registry_v1 import ModelView, RolloutStepView
from modelyard_contracts.training_v1 import TERMINAL_STATES

__all__ = ["Holder"]

_POLL_S = 0.02
_POLL_RUN_S = 0.25
_PATIENCE_S = 300.0
_ADOPTION_S = 20.0
_SHADOW_S = 1.0
"""Shadow copies are answered after their requests, and may be dropped: so long they are waited for."""
_ROLLOUT_LOOK_S = 2.0
"""The registry looks at a rollout four times a second; after this it waits for something else than responses."""


@dataclass(slots=True)
class Holder:
    """Waits, and counts how long.

    Attributes:
        keep_alive: called while waiting; the supervisor looks after its processes in it.
        held_s: seconds, in all.
    """

    platform: Modelyard
    model: str
    keep_alive: Callable[[], None]
    held_s: float = 0.0
    _quiet_since: int | None = None
    """Commands that drift had decided when nothing was under way; None: something may be."""
    _revision: int = 0
    """Of the routing table that inference has to serve."""

    def __call__(self, answered: int) -> None:
        """Return when the platform has caught up with so many answered rows.

        Raises:
            Unavailable: it does not within five minutes; says what it waits for.
        """
        started = time.monotonic()
        deadline = started + _PATIENCE_S
        while (waits_for := self._unsettled(answered)) is not None:
            if time.monotonic() > deadline:
                raise Unavailable(f"the platform did not catch up within {_PATIENCE_S:.0f} s: {waits_for}")
            self.keep_alive()
            time.sleep(_POLL_RUN_S if waits_for.startswith("run") else _POLL_S)
        if self._quiet_since is None:
            self._let_rollout_advance()
        self._await_adoption()
        self.held_s += time.monotonic() - started

    def _unsettled(self, answered: int) -> str | None:
        """Return what is still to happen, or None."""
        try:
            status = self.platform.drift.status(self.model)
            if status.requests < answered:
                return f"drift has {status.requests} of {answered} rows"
            if status.folded_label_seq < status.label_seq:
                return f"windows have seen the labels up to {status.folded_label_seq} of {status.label_seq}"
            if status.processed_seq < status.ingest_seq:
                return f"windows have seen {status.processed_seq} of {status.ingest_seq} rows {status.note}"
            if status.pending_commands:
                return f"{status.pending_commands} commands are not delivered"
            if status.commands == self._quiet_since:
                return None
            self._quiet_since = None
            active = [run for run in self.platform.training.runs(self.model) if run.state not in TERMINAL_STATES]
        except NotFound:
            return "drift has not seen the model yet" if answered else None
        except ModelyardError as exc:
            return str(exc)
        return f"run {active[0].id} is {active[0].state}" if active else None

    def _let_rollout_advance(self) -> None:
        """Give the registry time to act on a step that has its responses; note whether all is quiet then."""
        try:
            commands = self.platform.drift.status(self.model).commands
            view = self.platform.registry.model(self.model)
            while (step := self._ripe(view)) is not None:
                looked = time.monotonic() + _ROLLOUT_LOOK_S
                while _live(view) == step and time.monotonic() < looked:
                    self.keep_alive()
                    time.sleep(_POLL_S)
                    view = self.platform.registry.model(self.model)
                if _live(view) == step:
                    break
        except ModelyardError:
            return
        self._revision = view.routing_revision
        if view.rollout is None or view.rollout.state in ("completed", "aborted"):
            self._quiet_since = commands

    def _await_adoption(self) -> None:
        """Wait until inference serves what the registry decided."""
        deadline = time.monotonic() + _ADOPTION_S
        while not self._serves(self._revision) and time.monotonic() < deadline:
            self.keep_alive()
            time.sleep(_POLL_S)

    def _ripe(self, view: ModelView) -> RolloutStepView | None:
        """Return the live step of a rollout if its candidate has given the responses that the step asks for."""
        step = _live(view)
        if step is None or step.revision is None:
            return None
        patient_until = time.monotonic() + _SHADOW_S
        try:
            found = self.platform.drift.comparison(self.model, step.revision)
            while step.shadow and _behind(found) and time.monotonic() < patient_until:
                self.keep_alive()
                time.sleep(_POLL_S)
                found = self.platform.drift.comparison(self.model, step.revision)
        except NotFound:
            return None
        candidate = found.candidate
        return step if candidate is not None and candidate.responses >= step.min_requests else None

    def _serves(self, revision: int) -> bool:
        try:
            served = self.platform.inference.revision(self.model)
        except ModelyardError:
            return False
        return served is not None and served >= revision


def _behind(comparison: Comparison) -> bool:
    """Return whether shadow copies of answered rows are still on their way."""
    asked = comparison.champion.responses if comparison.champion is not None else 0
    return (comparison.candidate.responses if comparison.candidate is not None else 0) < asked


def _live(view: ModelView) -> RolloutStepView | None:
    if view.rollout is None or view.rollout.state != "running":
        return None
    return next((step for step in view.rollout.steps if step.outcome == "running"), None)
