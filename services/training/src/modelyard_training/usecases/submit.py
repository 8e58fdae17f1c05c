"""Submit a run: find the one that was asked for already, else put a new one into the queue.

The registry and drift are asked before the transaction, never in it. Refused: unknown, deleted and paused models, a
full queue, and an idempotency key that came with another request before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from modelyard_common.clock import Clock
from modelyard_common.errors import Conflict, NotFound, Overloaded
from modelyard_common.tracing import span
from modelyard_contracts.durations import duration_s

from modelyard_training.domain.ports import Claim, KnownModel, Labels, Models, Reader, Transactions
from modelyard_training.domain.runs import Run, State, Trigger

__all__ = ["Submission", "Submit", "Submitted", "spec_claim"]


@dataclass(frozen=True, slots=True)
class Submission:
    """What somebody asks for."""

    model: str
    trigger: Trigger
    until_label_seq: int | None = None
    idempotency_key: str | None = None
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The run, and whether it was made just now."""

    run: Run
    new: bool


def spec_claim(model: KnownModel) -> Claim:
    """Return the key of the one run that a model's data and recipe get."""
    return Claim(f"spec/{model.name}/{model.training_digest}")


@dataclass(frozen=True, slots=True)
class Submit:
    """Puts runs into the queue."""

    transactions: Transactions
    models: Models
    labels: Labels
    clock: Clock
    new_id: Callable[[datetime], str]
    max_queued: int
    wake: Callable[[], None]

    def __call__(self, asked: Submission) -> Submitted:
        """Return the run for a request; asked twice under one key, or for one episode of drift, it is the same run.

        Raises:
            NotFound: there is no such model.
            Conflict: the model is paused, or the key was used for another request.
            Overloaded: the queue is full.
            Unavailable: the registry or drift is away.
        """
        claims = _claims(asked)
        with self.transactions.read() as reader:
            existing = _existing(reader, claims)
        if existing is not None:
            return Submitted(existing, new=False)
        model = self.models.one(asked.model)
        if model is None or model.deleted:
            raise NotFound(f"there is no model {asked.model!r}; apply its manifest first")
        return self.enqueue(model, asked.trigger, claims, until_label_seq=asked.until_label_seq)

    def enqueue(
        self, model: KnownModel, trigger: Trigger, claims: Sequence[Claim], *, until_label_seq: int | None = None
    ) -> Submitted:
        """Put a run for a model into the queue, unless one of the claims has a run."""
        if model.spec.paused:
            raise Conflict(f"model {model.name!r} is paused; set spec.paused to false to train it")
        attributes = {"modelyard.model": model.name, "modelyard.trigger": trigger.kind}
        with span("submit run", kind="producer", attributes=attributes) as its:
            submitted = self._enqueue(model, trigger, claims, until_label_seq, its.traceparent)
            its.set("modelyard.run", submitted.run.id)
        return submitted

    def _enqueue(
        self,
        model: KnownModel,
        trigger: Trigger,
        claims: Sequence[Claim],
        until_label_seq: int | None,
        traceparent: str,
    ) -> Submitted:
        until = self._until(model, until_label_seq)
        now = self.clock.now()
        run = Run(
            id=self.new_id(now),
            model=model.name,
            trigger=trigger,
            spec=model.written,
            training_digest=model.training_digest,
            timeout_s=duration_s(model.spec.train.timeout),
            created=now,
            until_label_seq=until,
            traceparent=traceparent,
        )
        with self.transactions.write() as store:
            store.lock_queue()
            existing = _existing(store, claims)
            if existing is not None:
                return Submitted(existing, new=False)
            queued = store.count(State.PENDING)
            if queued >= self.max_queued:
                raise Overloaded(f"{queued} runs are waiting already, more are not taken", retry_after_s=30.0)
            store.add_run(run, claims)
        self.wake()
        return Submitted(run, new=True)

    def _until(self, model: KnownModel, given: int | None) -> int | None:
        """Return up to which label to learn: none before there is a champion, since nothing was predicted yet."""
        if model.champion is None:
            return None
        if given is not None:
            return given
        if not model.spec.train.learn_from.feedback and model.spec.fresh is None:
            return None
        return self.labels.newest_seq(model.name)


def _claims(asked: Submission) -> tuple[Claim, ...]:
    claims = []
    if asked.idempotency_key:
        claims.append(Claim(f"key/{asked.idempotency_key}", asked.request_digest))
    # A performance episode commands again with every window of new labels, which no run has seen.
    if asked.trigger.episode and asked.trigger.kind == "drift":
        claims.append(Claim(f"episode/{asked.model}/{asked.trigger.episode}"))
    return tuple(claims)


def _existing(reader: Reader, claims: Sequence[Claim]) -> Run | None:
    for claim in claims:
        found = reader.claimed(claim.key)
        if found is None:
            continue
        run, request_digest = found
        if claim.request_digest != request_digest:
            raise Conflict(f"the idempotency key was used for another request before, which made run {run.id}")
        return run
    return None
