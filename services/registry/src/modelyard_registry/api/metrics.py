"""What the endpoints count. Labels are models and closed sets of words."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["PROXIED", "PROXY_SECONDS", "REGISTER_SECONDS", "VERDICTS", "WATCHERS", "show_verdicts_of"]

VERDICTS = Counter("modelyard_registry_verdicts", "Versions judged", ["model", "decision"])
REGISTER_SECONDS = Histogram("modelyard_registry_register_seconds", "Time to verify and register a bundle")
PROXIED = Counter("modelyard_registry_proxy_requests", "Requests to the MLflow proxy", ["outcome"])
PROXY_SECONDS = Histogram("modelyard_registry_proxy_seconds", "Time until MLflow's answer began")
WATCHERS = Gauge("modelyard_registry_watchers", "Open watches")
for _outcome in ("passed", "governed", "refused", "unavailable", "too_large"):
    # To Prometheus a series that begins at 1 has not risen.
    PROXIED.labels(_outcome)

_DECISIONS = ("promote", "promote_predecessor", "keep", "insufficient", "hold")


def show_verdicts_of(models: Iterable[str]) -> None:
    """Show each decision of a model from 0 on: to Prometheus a series that begins at 1 has not risen."""
    for model in models:
        for decision in _DECISIONS:
            VERDICTS.labels(model, decision)
