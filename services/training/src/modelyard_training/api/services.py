"""What wiring hands to the endpoints, and how they get at it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from modelyard_common.auth.guards import allow

from modelyard_training.domain.ports import Launcher, Tables, Transactions
from modelyard_training.usecases.cancel import Cancel
from modelyard_training.usecases.report import TakeReport
from modelyard_training.usecases.submit import Submit
from modelyard_training.usecases.version_dataset import VersionDataset

__all__ = ["ANYBODY", "WRITERS", "Services", "TrainingServices"]

ANYBODY = [Depends(allow("service", "admin", "client"))]
WRITERS = [Depends(allow("service", "admin"))]


@dataclass(frozen=True, slots=True)
class TrainingServices:
    """The use cases and the doors that endpoints call."""

    transactions: Transactions
    submit: Submit
    cancel: Cancel
    report: TakeReport
    version_dataset: VersionDataset
    tables: Tables
    launcher: Launcher
    conversions: threading.BoundedSemaphore
    """Bounds how many datasets are converted at once."""


def _services(request: Request) -> TrainingServices:
    services: TrainingServices = request.app.state.training
    return services


Services = Annotated[TrainingServices, Depends(_services)]
