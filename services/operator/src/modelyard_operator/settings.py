"""The operator's settings: the only place that reads the environment (``MODELYARD_OPERATOR_*``)."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from modelyard_common.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

__all__ = ["OperatorSettings"]


def _identity() -> str:
    # A pod that starts again in its place has the same host name and is another holder.
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


class OperatorSettings(ServiceSettings):
    """What may be set, with its unit, default and reason."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_OPERATOR_", frozen=True, extra="ignore")

    port: int = Field(8084, ge=0, le=65535)
    kubeconfig: Path | None = None
    """How to reach the cluster; by default with the service account of this pod."""
    namespace: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Whose objects are followed. One namespace, since the registry knows models by their names alone."""
    resync_s: float = Field(5.0, gt=0)
    """Between two rounds; a change of a spec starts one at once. What the services do is seen within this."""
    watch_s: float = Field(5.0, ge=1, le=60)
    """How long one watch lasts; stopping the process waits for it."""
    call_timeout_s: float = Field(10.0, gt=0)
    """The deadline of one call of the cluster or a service."""
    lease_name: str = "modelyard-operator"
    """The Lease by which replicas agree on who works."""
    lease_s: int = Field(15, ge=3)
    """How long a leader that vanished is waited for."""
    identity: str = Field(default_factory=_identity, min_length=1)
    """This replica's name in the Lease."""
