"""The metrics of explanations, apart from those of predictions: what is asked for them is no traffic of the model."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from modelyard_inference.usecases.explain import Method

__all__ = ["PrometheusExplainObserver"]

EXPLANATIONS = Counter(
    "modelyard_inference_explanations_total", "Requests for explanations, by what became of them", ["model", "outcome"]
)
SECONDS = Histogram(
    "modelyard_inference_explain_seconds",
    "Time to explain a request, with the wait for the thread",
    ["model"],
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVALUATIONS = Counter(
    "modelyard_inference_explain_evaluations_total", "Rows that models were asked for explanations", ["model"]
)


class PrometheusExplainObserver:
    """Counts in Prometheus."""

    def explained(self, model: str, method: Method, rows: int, evaluations: int, took_s: float) -> None:
        """Count an explanation; its outcome is the method."""
        EXPLANATIONS.labels(model, method).inc()
        SECONDS.labels(model).observe(took_s)
        EVALUATIONS.labels(model).inc(evaluations)

    def not_explained(self, model: str, reason: str) -> None:
        """Count one that failed."""
        EXPLANATIONS.labels(model, reason).inc()
