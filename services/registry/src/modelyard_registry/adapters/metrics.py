"""What the background work and the doors count. Labels are models and closed sets of words."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

__all__ = ["BUNDLE_BYTES", "CHAMPION", "MIRROR_PENDING", "ROLLOUTS", "ROUTING"]

CHAMPION = Gauge("modelyard_registry_champion_number", "Number of the champion's version", ["model"])
ROUTING = Gauge("modelyard_registry_routing_revision", "Revision of the routing table", ["model"])
ROLLOUTS = Gauge("modelyard_registry_rollouts_active", "Rollouts under way")
MIRROR_PENDING = Gauge("modelyard_registry_mirror_pending", "Models whose mirror in MLflow is behind")
BUNDLE_BYTES = Counter("modelyard_registry_bundle_fetched_bytes", "Bundle bytes read from MLflow")
