"""Fragments that several dashboards say: selections, words for states, why there is no threshold."""

from __future__ import annotations

from tools.observability.frame import MODEL, NAMESPACE
from tools.observability.panels import Unjudged, Words

__all__ = [
    "CALLERS",
    "EDGE",
    "GRPC",
    "MANIFEST",
    "NUMBERED",
    "SEVERITIES",
    "asked",
    "by_model",
    "edge_quantile",
    "error_ratio",
    "growth",
    "latest",
    "or_none",
    "per_second",
    "quantile",
]

EDGE = f'{NAMESPACE}, job="modelyard-inference", route=~".*(/infer|invocations|:predict)"'
"""Prediction requests over HTTP, as the edge of inference counts them."""
GRPC = f'{NAMESPACE}, job="modelyard-inference", method=~"ModelInfer|ModelStreamInfer"'
"""And over gRPC, where each message of a stream is a request."""

SEVERITIES: Words = {
    -1: ("no window yet", "text"),
    0: ("none", "green"),
    1: ("low", "yellow"),
    2: ("high", "orange"),
    3: ("critical", "red"),
}

CALLERS = Unjudged("how many are normal depends on who calls.")
MANIFEST = Unjudged("what it should be stands in the model's manifest.")
NUMBERED = Unjudged("a version's number is no measure.")


def per_second(selector: str) -> str:
    """Return the rate of a counter."""
    return f"rate({selector}[$__rate_interval])"


def growth(selector: str) -> str:
    """Return by how much a counter grew between two bars."""
    return f"increase({selector}[$__interval])"


def latest(metric: str, selected: str = MODEL) -> str:
    """Return what all replicas say of a model, once."""
    return f"max by (model) ({metric}{{{selected}}})"


def by_model(metric: str, selected: str = MODEL, *, by: str = "model") -> str:
    """Return the rate of a counter, by model."""
    return f"sum by ({by}) ({per_second(f'{metric}{{{selected}}}')})"


def or_none(expr: str, label: str) -> str:
    """Return the expression, or a 0 under the name ``none`` while nothing of the kind has happened."""
    return f'{expr} or label_replace(vector(0), "{label}", "none", "", "")'


def quantile(q: float, histogram: str, selected: str, *by: str, window: str = "$__rate_interval") -> str:
    """Return a quantile of a histogram; what happens once in a while needs a window in which it has happened."""
    groups = ", ".join(("le", *by))
    return f"histogram_quantile({q}, sum by ({groups}) (rate({histogram}_bucket{{{selected}}}[{window}])))"


def asked(part: str) -> str:
    """Return the rates of a part, for example ``request_seconds_sum``, over both protocols, series by series."""
    return f"{per_second(f'modelyard_http_{part}{{{EDGE}}}')} or {per_second(f'modelyard_grpc_{part}{{{GRPC}}}')}"


def edge_quantile(q: float) -> str:
    """Return a quantile of the time to answer a prediction, over both protocols."""
    return f"histogram_quantile({q}, sum by (le) ({asked('request_seconds_bucket')}))"


def error_ratio() -> str:
    """Return the share of predictions over five minutes that inference could not answer, as the promise counts it."""
    return f'max(namespace:slo_errors:ratio_rate5m{{{NAMESPACE}, slo="inference-availability"}})'
