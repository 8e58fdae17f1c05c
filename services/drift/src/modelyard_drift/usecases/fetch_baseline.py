"""Find the frozen bins of a version: in memory, in the database, else from its bundle in the registry."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from modelyard_common.logs import get_logger
from modelyard_stats.baseline import Baseline

from modelyard_drift.usecases.ports import Reader, RegistryPort, Transactions

__all__ = ["NO_BASELINE", "FetchBaseline"]

_log = get_logger(__name__)
_KEEP = 64
NO_BASELINE = Baseline(features=(), prediction=None, rows=0, metrics={})
"""Of a version whose bundle has none: its windows count rows and are never scored."""


@dataclass(slots=True)
class FetchBaseline:
    """Gives baselines; a version's never changes, so what was read once is kept."""

    transactions: Transactions
    registry: RegistryPort
    _cache: OrderedDict[str, Baseline] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, model: str, digest: str) -> Baseline:
        """Return a version's baseline. Raise Unavailable while nobody can tell it."""
        with self.transactions.read() as store:
            found = self._known(store, digest)
        if found is not None:
            return found
        document = self.registry.baseline(model, digest)
        if document is None:
            _log.warning("baseline.absent", model=model, version=digest)
            document = NO_BASELINE.to_json()
        baseline = Baseline.from_json(document)
        with self.transactions.write() as writer:
            writer.save_baseline(digest, document)
        return self._remember(digest, baseline)

    def kept(self, store: Reader, digest: str) -> Baseline:
        """Return a baseline that was fetched before, within a transaction; none counts as an empty one."""
        return self._known(store, digest) or NO_BASELINE

    def _known(self, store: Reader, digest: str) -> Baseline | None:
        with self._lock:
            if (cached := self._cache.get(digest)) is not None:
                self._cache.move_to_end(digest)
                return cached
        document = store.baseline(digest)
        return None if document is None else self._remember(digest, Baseline.from_json(document))

    def _remember(self, digest: str, baseline: Baseline) -> Baseline:
        with self._lock:
            self._cache[digest] = baseline
            while len(self._cache) > _KEEP:
                self._cache.popitem(last=False)
        return baseline
