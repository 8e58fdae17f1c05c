"""Deliver retrain commands to training: each at least once, under an idempotency key, so that it runs once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelyard_common.errors import ModelyardError, Overloaded, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tracing import within

from modelyard_drift.usecases.ports import Decided, TrainingPort, Transactions

__all__ = ["RequestRetrain"]

_log = get_logger(__name__)


@dataclass(slots=True)
class RequestRetrain:
    """One turn delivers what is pending. While training is away commands wait, for ever if they must."""

    transactions: Transactions
    training: TrainingPort
    problem: str | None = None

    def __call__(self) -> None:
        """Deliver pending commands, oldest first; stops at the first that must wait."""
        with self.transactions.read() as store:
            pending = store.pending()
        for decision in pending:
            with within(decision.traceparent):
                self.problem = self._deliver(decision)
            if self.problem is not None:
                return
        self.problem = None

    def _deliver(self, decision: Decided) -> str | None:
        """Deliver one command; return what it must wait for."""
        try:
            run = self.training.command(decision)
        except (Unavailable, Overloaded) as exc:
            return f"training: {exc}"
        except ModelyardError as exc:
            _log.warning("command.refused", model=decision.model, decision=decision.id, reason=str(exc))
            reason = f"{decision.reason}; training refused: {exc}"
            self._keep(replace(decision, command="refused", reason=reason))
        else:
            _log.info("command.delivered", model=decision.model, decision=decision.id, run=run)
            self._keep(replace(decision, command="delivered", run=run))
        return None

    def _keep(self, decision: Decided) -> None:
        with self.transactions.write() as writer:
            writer.save_decision(decision)

    def check(self) -> str | None:
        """Return what is wrong: a health check."""
        return self.problem
