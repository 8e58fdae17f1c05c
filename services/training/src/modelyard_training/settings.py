"""The training service's settings: the only place that reads the environment (``MODELYARD_TRAINING_*``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

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

# So that a run does not depend on its machine.
_FIXED = {
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own default blocks for four minutes when its server is away.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


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
    tick_s: float | None = Field(None, gt=0)
    """How often runs are looked at: nobody tells us that one died. Default: 0.25, and 2 where a look asks a cluster."""
    specs_s: float = Field(1.0, gt=0)
    """How often the registry's models are compared with the runs."""
    schedules_s: float = Field(1.0, gt=0)
    """How often the clock is compared with the schedules, which go by minutes."""
    stop_grace_s: float = Field(10.0, ge=0)
    """Between asking a job to end and killing it."""
    max_attempts: int = Field(2, ge=1)
    """A killed process is launched again until this many attempts; failures of its own are never repeated."""
    launcher: Literal["local", "kubernetes"] = "local"
    """Where runs happen: processes of this machine, or Jobs of a cluster."""
    job_command: tuple[str, ...] = (sys.executable, "-P", "-m", "modelyard_trainer.main")
    """What is started for a run, followed by its job.json's path; in a Job, unless this is set, by the image."""
    job_niceness: int = Field(5, ge=0, le=19)
    """Jobs give way to serving beside them."""
    job_env: tuple[str, ...] = ()
    """More environment variables that jobs get from this service's, by name."""
    kubeconfig: Path | None = None
    """How to reach the cluster; by default with the service account of this pod."""
    job_namespace: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Where Jobs are made; the only one where this service needs rights."""
    job_image: str | None = None
    """The trainer's image, best by its digest. Required with ``launcher=kubernetes``."""
    job_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """A digest never changes, so what a node has is good."""
    job_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with credentials of the image registry."""
    job_service_account: str = "default"
    """Of the pods; its token is never mounted, since a job does not ask the cluster."""
    job_token_secret: str | None = None
    """A Secret with the token that jobs call the platform with. Required when ``token_file`` is set."""
    job_token_key: str = Field("token", pattern=r"^[-._a-zA-Z0-9]{1,253}$")
    """The key of that Secret: one Secret may hold the tokens of a whole platform, and a pod sees only its own."""
    job_secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables of jobs: credentials of MLflow's artifact store."""
    job_labels: dict[str, str] = {}
    """More labels of Jobs and pods: network policies and cost reports select by them."""
    job_node_selector: dict[str, str] = {}
    """Which nodes train; by default any."""
    job_tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that jobs put up with, as a pod spec has them."""
    job_disk: str = Field("10Gi", pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)$")
    """The most that a job may write; more ends it, so that it never fills its node."""
    job_ttl_s: int = Field(86400, ge=3600)
    """Seconds that a finished Job stays for people to look at: a day. Never less than the run may take."""
    job_start_patience_s: float = Field(600.0, ge=0)
    """How long a pod may fail to start before its run is failed: a cluster that grows needs some minutes for a node."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.port == 0 and "training_url" not in self.model_fields_set:
            raise ValueError("port 0 needs training_url: jobs must know where to report")
        return self

    @model_validator(mode="after")
    def _complete_for_jobs(self) -> Self:
        if self.launcher != "kubernetes":
            return self
        if self.job_image is None:
            raise ValueError("launcher is kubernetes: set job_image to the trainer's image")
        if "training_url" not in self.model_fields_set:
            raise ValueError("launcher is kubernetes: set training_url to where pods reach this service")
        if self.token_file is not None and self.job_token_secret is None:
            raise ValueError("token_file is set: set job_token_secret to the Secret with the token that jobs use")
        return self

    @property
    def look_s(self) -> float:
        """Between two looks at the runs: as it is set, else as cheap as a look is."""
        return self.tick_s or (0.25 if self.launcher == "local" else 2.0)

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
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {**passed, **self.pod_environment}

    @property
    def pod_environment(self) -> Mapping[str, str]:
        """The environment of every pod: what was named and what is fixed; this container's paths mean nothing there."""
        return {name: os.environ[name] for name in self.job_env if name in os.environ} | _FIXED
