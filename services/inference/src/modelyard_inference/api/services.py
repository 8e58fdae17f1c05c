"""What the endpoints get from wiring, as one value on ``app.state.inference``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard_common.health import Health
from modelyard_contracts.base import View

from modelyard_inference.api.front import Front
from modelyard_inference.domain.ports import Loading
from modelyard_inference.domain.records import Totals
from modelyard_inference.usecases.explain import Explain
from modelyard_inference.usecases.serving import ServedModels

__all__ = ["InferenceServices", "SpoolView"]


class SpoolView(View):
    """The spool in numbers."""

    pending_bytes: int
    size_bytes: int
    dropped: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceServices:
    """The parts that the endpoints use.

    Attributes:
        routing_age_s: since the routing was last known to be the registry's; None if it never was.
    """

    served: ServedModels
    loading: Loading
    health: Health
    spool: Callable[[], SpoolView]
    routing_age_s: Callable[[], float | None]
    shadow_rows: Callable[[], int]
    totals: Callable[[str, int], Totals]
    front: Front
    explain: Explain
