"""Runs as a process: an MLflow client as people have it, with nothing but its two addresses set."""

from __future__ import annotations

import json
import sys
from typing import Any

import mlflow
import mlflow.sklearn
import numpy as np
from mlflow.exceptions import MlflowException


def refused(call: Any, *arguments: Any) -> str:
    try:
        call(*arguments)
    except MlflowException as exc:
        return f"{exc.error_code}: {exc.message}"
    return "passed"


def main(name: str) -> None:
    client = mlflow.MlflowClient()
    champion = client.get_model_version_by_alias(name, "champion")
    loaded = mlflow.sklearn.load_model(f"models:/{name}@champion")
    generic = mlflow.pyfunc.load_model(f"models:/{name}/{champion.version}")
    x = np.arange(40.0).reshape(-1, 1)
    found = {
        "models": [model.name for model in client.search_registered_models()],
        "versions": [version.version for version in client.search_model_versions(f"name = '{name}'")],
        "champion": champion.version,
        "tags": champion.tags,
        "says": loaded.predict(x).tolist(),
        "generic": np.asarray(generic.predict(x)).tolist(),
        "runs": len(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])),
        "missing": refused(client.get_model_version_by_alias, name, "nobody"),
        "unknown": refused(client.get_registered_model, "nobody"),
        "create": refused(client.create_registered_model, "mine"),
        "alias": refused(client.set_registered_model_alias, name, "champion", "1"),
        "delete": refused(client.delete_registered_model, name),
        "run": refused(client.create_run, "0"),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
