"""The settings of drift: ``MODELYARD_DRIFT_*``."""

from __future__ import annotations

from typing import Literal

from modelyard_common.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

__all__ = ["DriftSettings"]


class DriftSettings(ServiceSettings):
    """What drift can be told."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_DRIFT_", frozen=True, extra="ignore")

    port: int = Field(8083, ge=0, le=65535)
    commands: Literal["on", "off"] = "on"
    """off: decisions are taken and recorded, and nothing is sent to training."""
    refresh_s: float = Field(1.0, gt=0)
    """Seconds between two looks at the registry's policies."""
    chunk_rows: int = Field(1000, ge=1, le=100_000)
    """Rows that one transaction of processing moves."""
    keep_rows: int = Field(1_000_000, ge=1000)
    """Rows of the prediction log that are kept a model; older ones go, windows and episodes stay."""
    max_waiting: int = Field(1_000_000, ge=0)
    """Labels a model that may wait for their predictions; more are refused."""
    retention_s: float = Field(60.0, gt=0)
    """Seconds between two looks for rows that are too old to keep."""
