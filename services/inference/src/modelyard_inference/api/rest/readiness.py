"""Whether the server can do its job, as several protocols ask: a status, and when to ask again."""

from __future__ import annotations

from modelyard_inference.api.services import InferenceServices

__all__ = ["readiness"]


def readiness(services: InferenceServices) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of the answer: 200, or 503 and to ask again in a second."""
    return (200, {}) if services.health.report().ready else (503, {"retry-after": "1"})
