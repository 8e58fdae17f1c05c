"""The training service's settings: the only place that reads the environment (``MODELYARD_TRAINING_*``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Self

from modelyard_common.settings import ServiceSettings
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

__all__ = ["TrainingSettings"]

# What a process needs to run at all and to trust the certificates that we trust; no secrets.
_PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)


class TrainingSettings(ServiceSettings):
    """What may be set, with its unit, default and reason."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_TRAINING_", frozen=True, extra="ignore")

    port: int = Field(8082, ge=0, le=65535)
    max_body_bytes: int = Field(1024**3, ge=1024)
    """The largest dataset that is taken in; a CSV file is parsed in memory, at about three times its size."""
    max_json_bytes: int = Field(16 * 1024**2, ge=1024)
    """The largest body of any other request; an Evaluation of a wide model is some hundred kilobytes."""
    max_running: int = Field(1, ge=1)
    """Runs at work at once; one leaves a laptop's other cores to serving."""
    max_queued: int = Field(100, ge=1)
    """Runs that may wait; more are refused, since something asks without need."""
    max_conversions: int = Field(2, ge=1)
    """Datasets converted at once; each takes a core and its table's size in memory."""
    tick_s: float = Field(0.25, gt=0)
    """How often processes are looked at: nobody tells us that one died."""
    specs_s: float = Field(1.0, gt=0)
    """How often the registry's models are compared with the runs."""
    schedules_s: float = Field(1.0, gt=0)
    """How often the clock is compared with the schedules, which go by minutes."""
    stop_grace_s: float = Field(10.0, ge=0)
    """Between asking a job to end and killing it."""
    max_attempts: int = Field(2, ge=1)
    """A killed process is launched again until this many attempts; failures of its own are never repeated."""
    job_command: tuple[str, ...] = (sys.executable, "-P", "-m", "modelyard_trainer.main")
    """What is started for a run, followed by the path of its job.json."""
    job_niceness: int = Field(5, ge=0, le=19)
    """Jobs give way to serving beside them."""
    job_env: tuple[str, ...] = ()
    """More environment variables that jobs get from this service's, by name."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.port == 0 and "training_url" not in self.model_fields_set:
            raise ValueError("port 0 needs training_url: jobs must know where to report")
        return self

    @property
    def own_url(self) -> str:
        """Where jobs reach this service."""
        if "training_url" in self.model_fields_set:
            return self.training_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def job_environment(self) -> Mapping[str, str]:
        """The environment that every job has: little, so that a run does not depend on who started the service."""
        passed = {name: os.environ[name] for name in (*_PASSED_ON, *self.job_env) if name in os.environ}
        return {
            **passed,
            "PYTHONHASHSEED": "0",
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # MLflow's own default blocks for four minutes when its server is away.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        }
