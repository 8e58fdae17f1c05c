"""What the endpoints count. Labels are models and closed sets of words."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["PROXIED", "PROXY_SECONDS", "REGISTER_SECONDS", "VERDICTS", "WATCHERS"]

VERDICTS = Counter("modelyard_registry_verdicts", "Versions judged", ["model", "decision"])
REGISTER_SECONDS = Histogram("modelyard_registry_register_seconds", "Time to verify and register a bundle")
PROXIED = Counter("modelyard_registry_proxy_requests", "Requests to the MLflow proxy", ["outcome"])
PROXY_SECONDS = Histogram("modelyard_registry_proxy_seconds", "Time until MLflow's answer began")
WATCHERS = Gauge("modelyard_registry_watchers", "Open watches")
