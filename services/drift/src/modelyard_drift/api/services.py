"""What wiring hands to the endpoints, and how they get at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from modelyard_common.auth.guards import allow
from modelyard_contracts.drift_v1 import LabelReceipt
from modelyard_contracts.events_v1 import EventReceipt

from modelyard_drift.usecases.browse import Browse
from modelyard_drift.usecases.build_report import BuildReport
from modelyard_drift.usecases.compare import Compare
from modelyard_drift.usecases.ingest import Ingest
from modelyard_drift.usecases.ingest_labels import IngestLabels

__all__ = ["ANYBODY", "LABELLERS", "SERVICES", "DriftServices", "Services"]

ANYBODY = [Depends(allow("service", "admin", "client"))]
SERVICES = [Depends(allow("service", "admin"))]
LABELLERS = ANYBODY


@dataclass(frozen=True, slots=True)
class DriftServices:
    """The use cases that endpoints call."""

    ingest: Ingest
    ingest_labels: IngestLabels
    browse: Browse
    compare: Compare
    build_report: BuildReport
    report_page: Callable[[dict[str, Any]], str]
    export_labelled: Callable[[str, int | None], Path]
    """(model, until) → a Parquet file that the caller deletes."""
    counted_events: Callable[[EventReceipt], None]
    counted_labels: Callable[[str, LabelReceipt], None]


def _services(request: Request) -> DriftServices:
    services: DriftServices = request.app.state.drift
    return services


Services = Annotated[DriftServices, Depends(_services)]
