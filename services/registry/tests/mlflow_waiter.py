"""Runs as a process: how long an MLflow client with its default retries waits for a server that is away."""

from __future__ import annotations

import json
import sys
import time

import mlflow
from mlflow.exceptions import MlflowException


def main() -> None:
    began = time.monotonic()
    try:
        mlflow.MlflowClient().search_registered_models()
        error = ""
    except MlflowException as exc:
        error = str(exc)
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - began, "error": error}) + "\n")


if __name__ == "__main__":
    main()
