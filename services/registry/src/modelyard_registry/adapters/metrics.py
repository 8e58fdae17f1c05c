"""What the background work and the doors count. Labels are models and closed sets of words.

Where models stand is read from the tables every few seconds. Times are Unix times of facts, not ages, so that a
scrape stays true between two looks; a series is there only while its fact is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelyard_common.metrics import Snapshot
from modelyard_contracts.registry_v1 import RoutingTable
from prometheus_client import Counter, Gauge

from modelyard_registry.domain.rollout import Rollout
from modelyard_registry.usecases.ports import Reader
from modelyard_registry.usecases.records import Promotion

__all__ = ["BUNDLE_BYTES", "MIRROR_PENDING", "Standing"]

CHAMPION = Snapshot("modelyard_registry_champion_number", "Number of the champion's version; 0: none", ["model"])
CHAMPION_SINCE = Snapshot(
    "modelyard_registry_champion_since_seconds",
    "When the champion became it, Unix; kind says by which kind of rollout",
    ["model", "kind"],
)
DATA_UNTIL = Snapshot(
    "modelyard_registry_champion_data_until_seconds",
    "Newest event time that the champion learned from, Unix",
    ["model"],
)
CANDIDATE = Snapshot(
    "modelyard_registry_candidate_number", "Number of the version that is being rolled out; 0: none", ["model"]
)
WEIGHT = Snapshot(
    "modelyard_registry_candidate_weight_percent", "Share of requests that the candidate answers", ["model"]
)
STEP = Snapshot(
    "modelyard_registry_rollout_step_number", "Step of the rollout that is live, from 1; 0: no rollout", ["model"]
)
STEP_STARTED = Snapshot(
    "modelyard_registry_rollout_step_started_seconds", "When the live step began, Unix; none: no live step", ["model"]
)
ROLLOUTS = Snapshot("modelyard_registry_rollouts_count", "Rollouts that are not over", ["state"])
WAITING_SINCE = Snapshot(
    "modelyard_registry_promotion_waiting_since_seconds",
    "When the oldest promotion that waits for approval was asked for, Unix; none: none waits",
    ["model"],
)
ROUTING = Snapshot("modelyard_registry_routing_revision", "Revision of the routing table", ["model"])
MIRROR_PENDING = Gauge("modelyard_registry_mirror_pending", "Models whose mirror in MLflow is behind")
BUNDLE_BYTES = Counter("modelyard_registry_bundle_fetched_bytes", "Bundle bytes read from MLflow")

_RECENT_ROLLOUTS = 20
"""Among so many the one that made the champion is looked for: refused ones come between."""


@dataclass(frozen=True, slots=True)
class _Reign:
    """What does not change as long as the routing does not."""

    revision: int
    kind: str
    since: datetime | None
    data_until: datetime | None


class Standing:
    """Shows where all models stand; reads of a model only what its routing says has changed."""

    def __init__(self) -> None:
        self._reigns: dict[str, _Reign] = {}

    def show(self, reader: Reader) -> None:
        """Show the present."""
        tables = [event.routing for event in reader.routing_snapshot() if event.routing is not None]
        living = {table.model: table for table in tables if not table.deleted}
        rollouts = {rollout.model: rollout for rollout in reader.active_rollouts()}
        self._reigns = {name: self._reign(reader, table) for name, table in living.items()}
        _show_routing(living)
        _show_rollouts(living, rollouts)
        _show_waiting(living, reader.waiting_promotions())
        self._show_reigns()

    def _reign(self, reader: Reader, table: RoutingTable) -> _Reign:
        known = self._reigns.get(table.model)
        if known is not None and known.revision == table.revision:
            return known
        champion = reader.champion(table.model)
        if champion is None:
            return _Reign(table.revision, "", None, None)
        since = next((reign.since for reign in reader.reigns(table.model)), None)
        recent = reader.rollouts(table.model, limit=_RECENT_ROLLOUTS)
        made_by = (one.kind for one in recent if one.state == "completed" and one.candidate == champion.digest)
        return _Reign(table.revision, next(made_by, "unknown"), since, champion.data_until)

    def _show_reigns(self) -> None:
        reigns = self._reigns.items()
        CHAMPION_SINCE.show({(name, reign.kind): reign.since.timestamp() for name, reign in reigns if reign.since})
        DATA_UNTIL.show({(name,): reign.data_until.timestamp() for name, reign in reigns if reign.data_until})


def _show_routing(tables: dict[str, RoutingTable]) -> None:
    ROUTING.show({(name,): table.revision for name, table in tables.items()})
    CHAMPION.show({(name,): table.champion.number if table.champion else 0 for name, table in tables.items()})
    CANDIDATE.show({(name,): table.candidate.number if table.candidate else 0 for name, table in tables.items()})
    WEIGHT.show({(name,): table.candidate.weight if table.candidate else 0 for name, table in tables.items()})


def _show_rollouts(tables: dict[str, RoutingTable], rollouts: dict[str, Rollout]) -> None:
    live = {name: rollouts[name].live if name in rollouts else None for name in tables}
    STEP.show({(name,): step.index + 1 if step else 0 for name, step in live.items()})
    STEP_STARTED.show(
        {(name,): step.started.timestamp() for name, step in live.items() if step is not None and step.started}
    )
    states = [rollout.state for rollout in rollouts.values()]
    ROLLOUTS.show({(state,): states.count(state) for state in ("running", "paused")})


def _show_waiting(tables: dict[str, RoutingTable], waiting: Sequence[Promotion]) -> None:
    # Oldest first: of several the one that has waited longest is shown.
    since = {one.model: one.created.timestamp() for one in reversed(waiting)}
    WAITING_SINCE.show({(name,): at for name, at in since.items() if name in tables})
