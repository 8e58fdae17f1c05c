"""Go on from a restored backup: no revision and no event that was told after the backup is ever told again.

A database that was put back counts on from where it was. Inference and drift have heard of later routing revisions,
and would take a new revision for an old one of the same number. So every count jumps over what may have been told
since, and every model's routing is announced anew.
"""

from __future__ import annotations

from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act

__all__ = ["LEAP", "declare_restored"]

LEAP = 1_000_000
"""Far more changes than any registry makes between two backups; the counts have room for two thousand leaps."""


def declare_restored(act: Act) -> int:
    """Return how many models were announced; what they serve stays as it was restored."""
    names = sorted(event.model for event in act.store.routing_snapshot())
    # All models before the counts: whoever else writes takes its locks in this order.
    models = [model for name in names if (model := act.store.lock_model(name)) is not None]
    act.store.skip_events(LEAP)
    for model in models:
        revision = conduct.republish(act, model, leap=LEAP)
        act.record("model.restored", model.name, str(revision), revision=revision)
        act.touch(model.name)
    return len(models)
