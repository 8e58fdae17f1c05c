"""The registry's metrics: ``modelyard_registry_*``. Labels are models and closed sets of words."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "BUNDLE_BYTES",
    "CHAMPION",
    "MIRROR_PENDING",
    "PROXIED",
    "PROXY_SECONDS",
    "REGISTER_SECONDS",
    "ROLLOUTS",
    "ROUTING",
    "VERDICTS",
    "WATCHERS",
]

VERDICTS = Counter("modelyard_registry_verdicts", "Versions judged", ["model", "decision"])
CHAMPION = Gauge("modelyard_registry_champion_number", "Number of the champion's version", ["model"])
ROUTING = Gauge("modelyard_registry_routing_revision", "Revision of the routing table", ["model"])
ROLLOUTS = Gauge("modelyard_registry_rollouts_active", "Rollouts under way")
MIRROR_PENDING = Gauge("modelyard_registry_mirror_pending", "Models whose mirror in MLflow is behind")
WATCHERS = Gauge("modelyard_registry_watchers", "Open watches")
PROXIED = Counter("modelyard_registry_proxy_requests", "Requests to the MLflow proxy", ["outcome"])
PROXY_SECONDS = Histogram("modelyard_registry_proxy_seconds", "Time until MLflow's answer began")
BUNDLE_BYTES = Counter("modelyard_registry_bundle_fetched_bytes", "Bundle bytes read from MLflow")
REGISTER_SECONDS = Histogram("modelyard_registry_register_seconds", "Time to verify and register a bundle")
