"""Metrics that every service has, with bounded labels: routes are templates, never paths that people sent."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["IN_FLIGHT", "LATENCY_BUCKETS_S", "REQUESTS", "REQUEST_SECONDS", "render"]

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter("modelyard_http_requests_total", "HTTP requests answered", ["service", "method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "modelyard_http_request_seconds", "Time to answer", ["service", "method", "route"], buckets=LATENCY_BUCKETS_S
)
IN_FLIGHT = Gauge("modelyard_http_requests_in_flight", "Requests being answered", ["service"])


def render() -> tuple[bytes, str]:
    """Return the exposition of all metrics of this process, and its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST
