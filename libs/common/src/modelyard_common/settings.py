"""Settings that every service has. Each comes from one environment variable, ``MODELYARD_<SERVICE>_<FIELD>``; where
traces go may also come from the variable that OpenTelemetry has for it.

A service subclasses ``ServiceSettings`` with its own prefix; nothing else reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

__all__ = ["ServiceSettings", "is_loopback"]

_STANDARD = {"otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT"}
"""What is the same for every program of an installation, and has a name of its own there."""


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    # The docstring of a setting is its description in what is generated from it, such as the charts' schemas.
    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        # What is wrong is logged, and a database's URL has a password.
        hide_input_in_errors=True,
    )

    host: str = "127.0.0.1"
    """The address to listen on. Beyond loopback only with ``auth=token``."""
    port: int = Field(0, ge=0, le=65535)
    """0: any free port, printed in the log."""
    auth: Literal["none", "token"] = "none"
    tokens_file: Path | None = None
    """The accepted tokens, hashed: one ``name role sha256-hex`` a line. Read again when it changes."""
    token_file: Path | None = None
    """This service's own token for what it asks of others."""
    data_dir: Path = Path(".modelyard")
    """Where state that must survive a restart is kept."""
    database_url: str | None = None
    """Default: an SQLite file in ``data_dir``."""
    migrations: Literal["apply", "require"] = "apply"
    """require: ``python -m modelyard_<service>.migrate`` has run before; an older schema keeps the service from
    starting."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    environment: str = Field("", max_length=63)
    """Which installation this is, such as production: part of every log line and trace."""
    otlp_endpoint: str | None = Field(None, pattern=r"^https?://[^/\s]+(/[^\s]*)?$")
    """Base URL of an OTLP/HTTP receiver of traces, such as http://collector:4318; none, and no spans are made. Without
    this OpenTelemetry's own variable, OTEL_EXPORTER_OTLP_ENDPOINT, is taken."""
    trace_ratio: float = Field(1.0, ge=0, le=1)
    """Share of the traces that begin here which are recorded; whoever calls with a trace has decided for it."""
    drain_s: float = Field(0.5, ge=0, le=600)
    """Seconds to keep serving after SIGTERM while load balancers notice that we are not ready."""
    grace_s: float = Field(20.0, ge=0, le=3600)
    """Seconds that requests in flight may take to finish after that."""
    max_body_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """The largest body of a request."""
    request_patience_s: float = Field(10.0, gt=0)
    """Seconds that a request may take to arrive, beside the time that its bytes are worth: who dribbles is cut off."""
    max_connections: int = Field(800, ge=8)
    """Connections at a time, well below the usual limit of 1,024 open files; who idles longest makes room."""
    awake_us: int = Field(150, ge=0, le=1000)
    """Microseconds that a server looks for the next small request before it sleeps, where such tend to come."""
    registry_url: str = "http://127.0.0.1:8081"
    training_url: str = "http://127.0.0.1:8082"
    drift_url: str = "http://127.0.0.1:8083"
    inference_url: str = "http://127.0.0.1:8080"
    mlflow_url: str = "http://127.0.0.1:8085"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Look into the variables that others have given a name last."""
        common = {field: os.environ[name] for field, name in _STANDARD.items() if os.environ.get(name)}
        others = InitSettingsSource(settings_cls, init_kwargs=common)
        return init_settings, env_settings, dotenv_settings, file_secret_settings, others

    @field_validator("otlp_endpoint", mode="before")
    @classmethod
    def _nowhere(cls, value: object) -> object:
        return value or None  # a variable that is passed on from somewhere is empty when it is not set there

    @model_validator(mode="after")
    def _safe_to_listen(self) -> Self:
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is beyond loopback and auth is none: set auth=token and tokens_file, "
                "or listen on 127.0.0.1"
            )
        if self.auth == "token" and self.tokens_file is None:
            raise ValueError("auth is token: set tokens_file to the file with the accepted tokens")
        return self

    def database(self, service: str) -> str:
        """Return the database URL: the one that is set, or an SQLite file of the service."""
        return self.database_url or f"sqlite:///{(self.data_dir / f'{service}.db').absolute()}"
