"""Cancel a run: note that it is to stop; the supervisor ends its process and the state follows.

A run that waits is cancelled at once. To cancel one that is over changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard_common.clock import Clock
from modelyard_common.errors import NotFound

from modelyard_training.domain.ports import Transactions
from modelyard_training.domain.runs import Run, State, ask_to_stop

__all__ = ["Cancel"]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stops runs that nobody wants any more."""

    transactions: Transactions
    clock: Clock
    ended: Callable[[Run], None]
    wake: Callable[[], None]

    def __call__(self, run_id: str, reason: str = "cancelled by a person") -> Run:
        """Return the run, which is cancelled or on its way there; raise NotFound when there is none."""
        with self.transactions.write() as store:
            before = store.lock_run(run_id)
            if before is None:
                raise NotFound(f"there is no run {run_id!r}")
            after = ask_to_stop(before, State.CANCELLED, self.clock.now(), reason)
            if after != before:
                store.save_run(after)
        if after.over and not before.over:
            self.ended(after)
        self.wake()
        return after
