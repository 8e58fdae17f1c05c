"""The registry's settings: the only place that reads environment variables (``MODELYARD_REGISTRY_*``)."""

from __future__ import annotations

from datetime import date

from modelyard_common.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

__all__ = ["RegistrySettings"]


class RegistrySettings(ServiceSettings):
    """What may be set, with its unit, default and reason."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_REGISTRY_", frozen=True, extra="ignore")

    port: int = Field(8081, ge=0, le=65535)
    rollout_interval_s: float = Field(0.25, gt=0)
    """How often rollouts under way are looked at; steps count hundreds of requests."""
    mirror_interval_s: float = Field(0.5, gt=0)
    """How often the mirror's work list is looked at; it is also looked at after every change."""
    watch_heartbeat_s: float = Field(5.0, gt=0)
    """How often a quiet watch says that it is alive; below the idle time of common proxies."""
    watch_poll_s: float = Field(0.5, gt=0)
    """How late a change by another replica may be seen; a change by this one is seen at once."""
    max_watchers: int = Field(256, ge=1)
    """Open watches; each costs a connection and a query a poll."""
    max_bundle_bytes: int = Field(2 * 1024**3, ge=1)
    """The largest bundle that is taken in; a boosted forest is a few megabytes, a large pipeline hundreds."""
    pickles_until: date | None = None
    """The last day (UTC) on which a new bundle may hold pickles, which run code where they are loaded: the operator's
    waiver. What was taken in by then stays; a runtime that loads it must allow pyfunc too. None: refused."""
    proxy_max_bytes: int = Field(4 * 1024**3, ge=1)
    """The largest answer of MLflow that is passed on."""
    proxy_deadline_s: float = Field(600.0, gt=0)
    """How long one answer of MLflow may take in all; a large artifact over a slow line."""
    mlflow_connect_s: float = Field(2.0, gt=0)
    """How long a connection to MLflow may take; while it is away callers hear so after this."""
    mlflow_read_s: float = Field(15.0, gt=0)
    """How long MLflow may be silent within an answer; searches over large experiments take seconds."""
    evidence_timeout_s: float = Field(3.0, gt=0)
    """How long drift may take for a comparison; a rollout waits and asks again."""
