"""The metrics of a server of several processes, and how its gauges are seen over all of them."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard_common.merged_metrics import Rule
from prometheus_client import Counter, Gauge

__all__ = ["GAUGE_RULES", "RESTARTS", "WORKERS"]

WORKERS = Gauge("modelyard_inference_workers_count", "Worker processes of this server that run")
RESTARTS = Counter("modelyard_inference_worker_restarts_total", "Worker processes that ended and were begun again")

GAUGE_RULES: Mapping[str, Rule] = {
    "modelyard_inference_workers_count": "max",
    "modelyard_inference_shadow_waiting_rows": "sum",
    "modelyard_inference_spool_size_bytes": "sum",
    "modelyard_inference_spool_pending_bytes": "sum",
    "modelyard_inference_spool_limit_bytes": "sum",
    "modelyard_inference_sink_pending_bytes": "sum",
    "modelyard_inference_bodies_held_bytes": "sum",
    "modelyard_inference_bodies_limit_bytes": "sum",
    "modelyard_inference_models_in_memory_bytes": "sum",
    "modelyard_inference_models_in_memory_limit_bytes": "sum",
    # The oldest is what a caller may meet; -1, which is never yet, is below all others.
    "modelyard_inference_routing_age_seconds": "max",
    "modelyard_inference_served_number": "min",
    "modelyard_inference_routing_revision": "min",
    "modelyard_inference_candidate_tripped_state": "max",
    "modelyard_inference_models_waiting_count": "max",
    "modelyard_inference_lane_waiting_requests": "sum",
    "modelyard_inference_lane_lost_threads": "sum",
}
"""``min`` of what is in force: a version counts as served once it is served by all."""
