"""The pod that training makes with what a chart told it."""

from __future__ import annotations

import os
from unittest import mock

from modelyard_training.adapters.launchers.job_manifest import job_manifest
from modelyard_training.domain.ports import Job
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import job_template

from tests.chart.rendering import Document, environment, pods


def trainer_job(documents: list[Document]) -> Document:
    """Return the Job of a run, as training makes it in this rendering."""
    [pod] = [pod for pod in pods(documents) if pod.component == "training"]
    with mock.patch.dict(os.environ, environment(pod.spec["containers"][0])):
        settings = TrainingSettings()
    run = {"run": "run-0123456789a-00000000", "model": "electricity"}
    return job_manifest(Job(run["run"], 1, run), job_template(settings))


def trainer_pod(documents: list[Document]) -> Document:
    """Return the template of its pod."""
    template: Document = trainer_job(documents)["spec"]["template"]
    return template
