"""What MLflow's library is told. It takes its settings from the environment only, so this is where we write there."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard_common.auth.bearer import token_in

__all__ = ["tell_mlflow"]

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # its own seven keep a job waiting for four minutes; we wait ourselves
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the log of a run is JSON, one event a line
}


def tell_mlflow(token_file: Path | None) -> None:
    """Write the settings, and the token when there is one. Raise Unauthenticated when its file holds none."""
    os.environ.update(_SETTINGS)
    if token_file is not None:
        os.environ["MLFLOW_TRACKING_TOKEN"] = token_in(token_file)
