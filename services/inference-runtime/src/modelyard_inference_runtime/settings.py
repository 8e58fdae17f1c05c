"""What may be set, by ``MODELYARD_INFERENCE_RUNTIME_*``; and the environment that the models' processes get."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["RuntimeSettings", "worker_environment"]

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED", "TZ")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class RuntimeSettings(BaseSettings):
    """What may be set, with its unit, default and reason."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_INFERENCE_RUNTIME_",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    socket: Path = Path("/run/modelyard/runtime.sock")
    """Where the inference server calls; the models' own sockets are made beside it. Whoever may write to that folder
    may have any folder loaded: it belongs to the pod, or to the user."""
    pyfunc: bool = False
    """Load models by MLflow's pyfunc. Such a model is code of whoever registered it, and runs with all that this
    process may do; skops files are loaded without this, by a list of types."""
    memory_bytes: int = Field(0, ge=0)
    """Memory that the process of one version may take; a leak ends there, and the process is replaced. 0: no limit."""
    threads: int = Field(1, ge=1)
    """Threads of numeric libraries in one process. More of them help large requests and make small ones wait."""
    most_versions: int = Field(32, ge=1)
    """Versions that are loaded at once: each takes about 160 MB, or 230 MB with pandas, part of it shared libraries."""
    start_timeout_s: float = Field(60.0, gt=0)
    """How long a version may take to load."""
    crash_limit: int = Field(5, ge=1)
    """Ends of a version's process within ``crash_window_s`` after which it is not started any more."""
    crash_window_s: float = Field(300.0, gt=0)
    """How long an end is held against a version, and how long it then rests."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    environment: str = Field("", max_length=63)
    """Which installation this is, such as production: part of every log line."""


def worker_environment(threads: int) -> Mapping[str, str]:
    """Return the environment of a model's process: what Python needs, and no secret that stands in ours."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Bytecode beside a model's code would be a file that its manifest does not name.
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": "/nonexistent"}
    return kept | dict.fromkeys(_THREADS, str(threads)) | fixed
