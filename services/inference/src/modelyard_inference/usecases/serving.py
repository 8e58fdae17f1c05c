"""What is served right now: for each model one immutable snapshot, exchanged by assigning one reference.

A request takes the snapshot once and keeps it to its end, so that it never sees half of a swap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from modelyard_bundle.runtimes.base import Runtime
from modelyard_common.errors import NotFound, Unavailable
from modelyard_contracts.bundle_v1 import Signature

from modelyard_inference.domain.answers import AnswerReader, Answers
from modelyard_inference.domain.binding import Binder, Bound
from modelyard_inference.domain.breaker import Breaker
from modelyard_inference.domain.requests import Rows
from modelyard_inference.domain.routing import Routing, Version

__all__ = ["Guard", "LoadedVersion", "ServedModels", "Serving"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version that was verified, loaded, and has answered its probe set as recorded."""

    version: Version
    signature: Signature
    runtime: Runtime
    binder: Binder = field(repr=False)
    queues: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What waits for it, by whoever keeps the queue: they go when the version goes."""
    reader: AnswerReader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare to read what the runtime says."""
        object.__setattr__(self, "reader", AnswerReader(self.signature))

    @property
    def platform(self) -> str:
        """What runs it, as V2 metadata calls it."""
        return f"modelyard_{self.runtime.name}"

    @property
    def problem(self) -> str:
        """Why its runtime cannot be asked now, where that is a process or a server that may be away."""
        return str(getattr(self.runtime, "problem", ""))

    def answer(self, rows: Rows) -> tuple[Bound, Answers]:
        """Return the rows as this version takes them, and the answers.

        Raises:
            Invalid: the rows do not fit the signature.
            Exception: whatever the runtime raises.
        """
        bound = self.binder.bind(rows)
        predicted = self.runtime.predict(bound.columns)
        return bound, self.reader.one(rows.count, predicted)


class Guard:
    """The breaker of one candidate, counted from several threads.

    Attributes:
        champion_s: what the champion took for the last request that it answered beside the candidate.
    """

    def __init__(self, limit: int) -> None:
        self.champion_s = 0.0
        self._breaker = Breaker(limit=limit)
        self._in_vain_s = 0.0
        self._lock = threading.Lock()

    @property
    def tripped(self) -> bool:
        """Whether the candidate gets no more requests."""
        return self._breaker.tripped

    def succeeded(self) -> None:
        """Count an answer."""
        if self._breaker.failures or self._in_vain_s:
            with self._lock:
                self._breaker = self._breaker.succeeded()
                self._in_vain_s = 0.0

    def failed(self) -> bool:
        """Count a failure; return whether it is the one that trips the breaker."""
        with self._lock:
            before, self._breaker = self._breaker, self._breaker.failed()
            return self._breaker.tripped and not before.tripped

    def waited_in_vain(self, took_s: float) -> float:
        """Count how long a caller waited for no answer; return how long all have since the last answer."""
        with self._lock:
            self._in_vain_s += took_s
            return self._in_vain_s


@dataclass(frozen=True, slots=True)
class Serving:
    """One model as it is served: a revision of its routing, with its versions loaded.

    Attributes:
        candidate: None also while the routing's candidate is refused or not loaded yet.
        guard: of the candidate.
        kept: former champions that are still loaded, newest first.
    """

    routing: Routing
    champion: LoadedVersion
    candidate: LoadedVersion | None = None
    guard: Guard | None = None
    kept: tuple[LoadedVersion, ...] = ()

    @property
    def loaded(self) -> tuple[LoadedVersion, ...]:
        """All versions that can be asked for by name."""
        first = (self.champion,) if self.candidate is None else (self.champion, self.candidate)
        return first + self.kept

    def version(self, reference: str) -> LoadedVersion:
        """Return the version with this number, digest or alias. Raise NotFound when it is not loaded here."""
        alias = reference.removeprefix("@")
        if alias == "champion":
            return self.champion
        for loaded in self.loaded:
            if reference in (str(loaded.version.number), loaded.version.digest):
                return loaded
        if alias == "candidate" and self.candidate is not None:
            return self.candidate
        names = ", ".join(str(loaded.version.number) for loaded in self.loaded)
        raise NotFound(f"model {self.routing.model!r} has no such version loaded here; there is {names}")


class ServedModels:
    """All models of this server. Many threads read; one, the lifecycle's, writes."""

    def __init__(self) -> None:
        self._serving: Mapping[str, Serving] = {}
        self._waiting: Mapping[str, str] = {}
        self._known = self._restored = False

    def find(self, model: str) -> Serving:
        """Return how a model is served.

        Raises:
            NotFound: nobody has told us of it.
            Unavailable: it has no champion that is loaded here.
        """
        serving = self._serving.get(model)
        if serving is not None:
            return serving
        if model in self._waiting:
            raise Unavailable(f"model {model!r} is not ready: {self._waiting[model]}", retry_after_s=1)
        self.must_know()
        raise NotFound(f"there is no model {model!r} here; there is {', '.join(self.names) or 'none'}")

    def check(self, model: str, version: str | None = None) -> None:
        """Return if this version, or what answers for the model, can be asked now.

        Raises:
            NotFound: there is no such model or version here.
            Unavailable: it is not loaded, or what runs it is away.
        """
        serving = self.find(model)
        loaded = serving.champion if version is None else serving.version(version)
        if loaded.problem:
            raise Unavailable(f"model {model!r} is not ready: {loaded.problem}", retry_after_s=1)

    def get(self, model: str) -> Serving | None:
        """Return how a model is served; None where it is not."""
        return self._serving.get(model)

    @property
    def names(self) -> list[str]:
        """The models that are served, by name."""
        return sorted(self._serving)

    @property
    def routed(self) -> list[str]:
        """The models that are served here or wait to be, by name."""
        return sorted(self._serving.keys() | self._waiting.keys())

    def all(self) -> list[Serving]:
        """Return how each model is served, by name."""
        return [self._serving[name] for name in self.names]

    @property
    def waiting(self) -> Mapping[str, str]:
        """The models that are not served, and why."""
        return self._waiting

    def must_know(self, *, restored: bool = False) -> None:
        """Return once the list of models is known. Raise Unavailable until then.

        Args:
            restored: that of before a restart will do.
        """
        if not self._known and not (restored and self._restored):
            raise Unavailable("this server does not know its models yet", retry_after_s=1)

    def known(self) -> None:
        """Say that the list of models is known: what is not on it does not exist."""
        self._known = True

    def restored(self) -> None:
        """Say that the models are those of before a restart: there may be others by now."""
        self._restored = True

    def serve(self, serving: Serving) -> None:
        """Put a snapshot into force."""
        name = serving.routing.model
        self._serving = {**self._serving, name: serving}
        self._waiting = _without(self._waiting, name)

    def wait(self, model: str, reason: str) -> None:
        """Say why a model is not served; one that is served stays so."""
        if model not in self._serving:
            self._waiting = {**self._waiting, model: reason}

    def withdraw(self, model: str, reason: str) -> None:
        """Serve a model no longer, and say why. It is never seen in neither list, as one that does not exist is."""
        self._waiting = {**self._waiting, model: reason}
        self._serving = _without(self._serving, model)

    def keep_only(self, models: Iterable[str]) -> None:
        """Forget every other model."""
        names = set(models)
        self._serving = {name: serving for name, serving in self._serving.items() if name in names}
        self._waiting = {name: reason for name, reason in self._waiting.items() if name in names}


def _without(mapping: Mapping[str, T], name: str) -> Mapping[str, T]:
    return {key: value for key, value in mapping.items() if key != name}
