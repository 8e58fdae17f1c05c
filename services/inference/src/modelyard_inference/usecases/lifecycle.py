"""Bring models to what the registry's routing says: fetch, verify, load, ask the probe set, and only then swap.

What is in force stays in force until the new champion is loaded: one that cannot be loaded never replaces one that
serves. A candidate that is refused, or cannot be had now, leaves the champion alone and keeps nothing waiting: whatever
else the new revision says holds at once, above all that another candidate was aborted or what is not to be logged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelyard_bundle.probe import replay
from modelyard_bundle.runtimes.base import Runtime
from modelyard_common import context
from modelyard_common.clock import Clock
from modelyard_common.errors import Invalid, ModelyardError, NotFound, Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.tracing import span
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_inference.domain.binding import Binder
from modelyard_inference.domain.ports import Bundles, Reports, Runtimes, Shelf
from modelyard_inference.domain.routing import Routing, Version
from modelyard_inference.usecases.residents import Residents, estimated_bytes
from modelyard_inference.usecases.serving import Guard, LoadedVersion, ServedModels, Serving

__all__ = ["Lifecycle"]

_log = get_logger(__name__)
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0


@dataclass(slots=True)
class _Wish:
    """The routing that a model should have, and how often it could not be had."""

    routing: Routing
    failures: int = 0
    retry_at: float = 0.0
    absent: str = ""
    """Why nothing is served though a champion may still come."""
    refused: str | None = None
    """The candidate that was refused: it is not tried again within this rollout."""
    guard: Guard | None = None
    """The breaker of the candidate, one for its whole rollout."""

    def failed(self, now: float) -> None:
        self.retry_at = now + min(_FIRST_RETRY_S * 2.0**self.failures, _LONGEST_RETRY_S)
        self.failures += 1


class Lifecycle:
    """Owns what is served. Everything may be called from any thread; one at a time reconciles.

    Args:
        kept: former champions that stay loaded.
        residents: which runtimes stay in memory.
        patience_s: how long a new server waits for champions that cannot be had now, before it serves the others.
        breaker_failures: failures in a row that trip a candidate.
    """

    def __init__(
        self,
        *,
        served: ServedModels,
        bundles: Bundles,
        runtimes: Runtimes,
        residents: Residents,
        reports: Reports,
        shelf: Shelf,
        clock: Clock,
        kept: int = 1,
        breaker_failures: int = 3,
        patience_s: float = 60.0,
    ) -> None:
        self._served = served
        self._bundles = bundles
        self._runtimes = runtimes
        self._residents = residents
        self._reports = reports
        self._shelf = shelf
        self._clock = clock
        self._kept = kept
        self._breaker_failures = breaker_failures
        self._patience_s = patience_s
        self._wishes: dict[str, _Wish] = {}
        self._unloaded: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._complete = self._restored = False
        self._first_look: float | None = None
        self._unsettled = "the registry has not been heard yet, and nothing is kept from before"

    @property
    def unsettled(self) -> str:
        """Why this server cannot do its job yet; empty from the moment it could, once and for all.

        It can when it serves every champion that can be had. A new server that took requests for a model whose bundle
        is only on its way would fail what its elders answer.
        """
        return self._unsettled

    def revision(self, model: str) -> int | None:
        """Return the revision that is wished for."""
        wish = self._wishes.get(model)
        return wish.routing.revision if wish else None

    def wish(self, routing: Routing, *, older: bool = False) -> None:
        """Ask for a routing. One that is older than the last is ignored unless ``older``."""
        with self._lock:
            last = self._wishes.get(routing.model)
            if last is not None and (
                last.routing == routing or (routing.revision <= last.routing.revision and not older)
            ):
                return
            self._wishes[routing.model] = self._next(routing, last)

    def _next(self, routing: Routing, last: _Wish | None) -> _Wish:
        """Return the wish for a routing; what is known of a candidate goes on as long as its rollout does.

        Whether it does is judged from wish to wish: of what is in force, a revision between may be missing.
        """
        candidate = routing.candidate
        if candidate is None:
            return _Wish(routing)
        digest = candidate.version.digest
        if last is not None and last.routing.candidate is not None and last.routing.candidate.version.digest == digest:
            return _Wish(routing, refused=last.refused, guard=last.guard)
        return _Wish(routing, guard=Guard(self._breaker_failures))

    def restore(self, routings: Iterable[Routing]) -> None:
        """Ask for what was in force before a restart, which is served also while the registry is away."""
        for routing in routings:
            self.wish(routing)
            self._restored = True

    def forget(self, model: str) -> None:
        """Stop serving a model."""
        with self._lock:
            self._wishes.pop(model, None)

    def complete(self, models: Iterable[str]) -> None:
        """Say that these are all models there are: any other is forgotten."""
        names = set(models)
        with self._lock:
            self._wishes = {name: wish for name, wish in self._wishes.items() if name in names}
            self._complete = True

    def unload(self, model: str) -> None:
        """Stop serving a model in this process until it is loaded again; its routing is followed on.

        Raises:
            NotFound: nobody has told us of it.
        """
        with self._lock:
            wish = self._wishes.get(model)
            if wish is None:
                raise NotFound(f"there is no model {model!r} here")
            if wish.guard is not None:
                wish.guard = Guard(self._breaker_failures)
            self._unloaded |= {model}
        self.reconcile()

    def load(self, model: str) -> None:
        """Serve a model as its routing says, now: also one that was unloaded, or waits for its next attempt.

        Raises:
            NotFound: nobody has told us of it.
            Unavailable: it cannot be served; says why.
        """
        with self._lock:
            wish = self._wishes.get(model)
            if wish is not None:
                wish.retry_at = 0.0
            self._unloaded -= {model}
        self.reconcile()
        self._served.find(model)

    def reconcile(self) -> None:
        """Make what is served what is wished for, as far as it can be had now."""
        with self._turn:
            self._reconcile()

    def _reconcile(self) -> None:
        with self._lock:
            wishes, complete, unloaded = dict(self._wishes), self._complete, self._unloaded
        served = {serving.routing.model: serving for serving in self._served.all()}
        changed = bool(served.keys() - wishes.keys())
        self._served.keep_only(wishes.keys())
        for name in sorted(unloaded & wishes.keys()):
            self._served.withdraw(name, "it was unloaded here by request")
        for name in sorted(wishes.keys() - self._served.waiting.keys()):
            self._served.wait(name, "it is being loaded")
        if complete:
            self._served.known()
        elif self._restored:
            self._served.restored()
        for name, wish in sorted(wishes.items()):
            if name in unloaded:
                continue
            current = served.get(name)
            if wish.retry_at <= self._clock.monotonic() and not _fulfilled(wish, current):
                changed |= self._fulfil(wish, current)
        if changed:
            self._shelf.save([serving.routing for serving in self._served.all()])
        if self._unsettled and (complete or self._restored):
            self._settle(wishes)

    def _settle(self, wishes: Mapping[str, _Wish]) -> None:
        now = self._clock.monotonic()
        self._first_look = now if self._first_look is None else self._first_look
        absent = next((f"{name}: {wish.absent}" for name, wish in sorted(wishes.items()) if wish.absent), "")
        self._unsettled = absent if now < self._first_look + self._patience_s else ""

    def _fulfil(self, wish: _Wish, current: Serving | None) -> bool:
        """Load and swap; return whether something else is in force now."""
        routing = wish.routing
        if routing.champion is None:
            self._served.wait(routing.model, "it has no champion yet")
            return False
        with _traced(routing, current):
            return self._bring(wish, routing.champion, current)

    def _bring(self, wish: _Wish, wanted: Version, current: Serving | None) -> bool:
        routing = wish.routing
        try:
            champion = self._obtain(routing, wanted, current)
        except ModelyardError as exc:
            self._champion_failed(wish, wanted, exc)
            wish.absent = exc.message if current is None and not isinstance(exc, Invalid) else ""
            return False
        wish.absent = ""
        candidate = None
        if routing.candidate is not None and routing.candidate.version.digest != wish.refused:
            try:
                candidate = self._obtain(routing, routing.candidate.version, current)
            except Invalid as exc:
                wish.refused = routing.candidate.version.digest
                self._refuse(routing, routing.candidate.version, exc.message)
            except ModelyardError as exc:
                wish.failed(self._clock.monotonic())
                _log.warning("candidate.not_loaded", model=routing.model, reason=exc.message)
                if current is not None and current.routing == routing:
                    return False
        self._swap(wish, current, champion, candidate)
        return True

    def _swap(
        self, wish: _Wish, current: Serving | None, champion: LoadedVersion, candidate: LoadedVersion | None
    ) -> None:
        routing = wish.routing
        in_use = {loaded.version.digest for loaded in (champion, candidate) if loaded is not None}
        former = () if current is None else (current.champion, *current.kept)
        kept = tuple(loaded for loaded in former if loaded.version.digest not in in_use)[: self._kept]
        guard = wish.guard if candidate is not None else None
        self._served.serve(Serving(routing, champion, candidate, guard, kept))
        _log.info(
            "routing.in_force",
            model=routing.model,
            revision=routing.revision,
            champion=champion.version.number,
            candidate=candidate.version.number if candidate else None,
        )
        for loaded in (champion, candidate):
            if loaded is not None:
                self._reports.tell(routing.model, loaded.version.digest, routing.revision, "serving")

    def _champion_failed(self, wish: _Wish, champion: Version, error: ModelyardError) -> None:
        routing = wish.routing
        wish.failed(self._clock.monotonic())
        self._served.wait(routing.model, "its champion cannot be loaded here yet")
        if isinstance(error, Invalid):
            self._refuse(routing, champion, error.message)
        else:
            _log.warning("champion.not_loaded", model=routing.model, reason=error.message)

    def _refuse(self, routing: Routing, version: Version, reason: str) -> None:
        _log.warning("version.refused", model=routing.model, version=version.number, reason=reason)
        self._reports.tell(routing.model, version.digest, routing.revision, "refused", reason)

    def _obtain(self, routing: Routing, version: Version, current: Serving | None) -> LoadedVersion:
        for loaded in current.loaded if current is not None else ():
            if loaded.version == version:
                return loaded
        return self._load(routing.model, version)

    def _load(self, model: str, version: Version) -> LoadedVersion:
        """Return a version, by the first of its runtimes that answers the probe set as recorded.

        Raises:
            Invalid: the bundle is not what its digest says, or no runtime answers as recorded.
            Unavailable: the bundle or its runtime cannot be had now, or something unforeseen was raised.
        """
        with span("load version", attributes={"modelyard.model": model, "modelyard.version": version.number}):
            try:
                with self._bundles.reading(model, version.digest) as (folder, manifest):
                    return self._run_first(model, version, folder, manifest)
            except ModelyardError:
                raise
            except Exception as exc:  # it must not stop the models behind this one, nor what else a revision says
                kind = type(exc).__name__
                _log.error("version.not_loaded", model=model, version=version.number, kind=kind)
                raise Unavailable(f"version {version.number} cannot be loaded here ({kind})") from exc

    def _run_first(self, model: str, version: Version, folder: Path, manifest: BundleManifest) -> LoadedVersion:
        problem = Invalid("the bundle names no runtime")
        for name in manifest.runtimes:
            try:
                runtime = self._runtimes.load(folder, manifest, version.digest, name)
                replay(runtime, manifest.signature, folder)
            except Invalid as exc:
                problem = exc
            except Unavailable:
                raise
            except Exception as exc:  # whatever a damaged model raises
                problem = Invalid(f"the {name} runtime does not run it ({type(exc).__name__})")
            else:
                bring = partial(self._again, model, version, name)
                runtime = self._residents.keep(model, runtime, estimated_bytes(manifest, name), bring)
                return LoadedVersion(version, manifest.signature, runtime, Binder(manifest.signature))
            _log.warning("runtime.refused", model=model, version=version.number, runtime=name, reason=str(problem))
        raise problem

    def _again(self, model: str, version: Version, name: str) -> Runtime:
        """Return the runtime of a version that answered its probe set once, as if it had never been loaded."""
        with self._bundles.reading(model, version.digest) as (folder, manifest):
            runtime = self._runtimes.load(folder, manifest, version.digest, name)
            replay(runtime, manifest.signature, folder)
        return runtime


def _traced(routing: Routing, current: Serving | None) -> AbstractContextManager[object]:
    """Return the span of what follows from a routing revision.

    A swap goes on with the trace that published it. A server that has just started, or was told to load, has a story
    of its own, perhaps weeks later, and points to that trace.
    """
    goes_on = current is not None and context.traceparent.get() is None
    published = routing.traceparent
    return span(
        "apply routing",
        kind="consumer",
        parent=published if goes_on else None,
        links=(published,) if published and not goes_on else (),
        attributes={"modelyard.model": routing.model, "modelyard.revision": routing.revision},
    )


def _fulfilled(wish: _Wish, current: Serving | None) -> bool:
    if current is None or current.routing != wish.routing:
        return False
    candidate = wish.routing.candidate
    return candidate is None or current.candidate is not None or candidate.version.digest == wish.refused
