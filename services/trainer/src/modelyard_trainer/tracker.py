"""The one door to MLflow's library: experiment, run, parameters, metrics, artifacts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from modelyard_common.errors import ModelyardError
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_trainer.errors import RunFailed

__all__ = ["ARTIFACT_PATH", "MlflowTracker"]

_log = get_logger(__name__)
ARTIFACT_PATH = "bundle"
_PATIENCE_S = 90.0
"""An MLflow server takes about eleven seconds to start; more than this is an outage, and the run says so."""


class MlflowTracker:
    """Tracks a run in MLflow.

    Importing MLflow takes seconds, so a thread does it while the model is fitted.

    Args:
        url: of the server.
        run: our run's id; kept as a tag.
    """

    def __init__(self, url: str, *, run: str, token_file: Path | None = None) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "20"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        if token_file is not None:
            os.environ["MLFLOW_TRACKING_TOKEN"] = token_file.read_text().strip()
        self._url = url
        self._run = run
        self._module: Any = None
        self._importer = threading.Thread(target=self._import, name="import-mlflow", daemon=True)
        self._importer.start()

    def _import(self) -> None:
        import mlflow.tracking  # noqa: PLC0415  # seconds long, see above

        self._module = mlflow.tracking

    def track(self, folder: Path, manifest: BundleManifest, metrics: dict[str, float]) -> str:
        """Record a run and its bundle; return MLflow's run id.

        Raises:
            RunFailed: MLflow could not be reached within a minute and a half, or refused.
        """
        self._importer.join()
        if self._module is None:
            raise RunFailed("mlflow-skinny could not be imported in the training job")
        client = self._module.MlflowClient(tracking_uri=self._url, registry_uri=self._url)
        deadline = time.monotonic() + _PATIENCE_S
        pause_s = 0.5
        while True:
            try:
                return self._record(client, folder, manifest, metrics)
            except ModelyardError:
                raise
            except Exception as exc:  # mlflow raises requests', urllib3's and its own
                if time.monotonic() + pause_s > deadline:
                    raise RunFailed(
                        f"MLflow at {self._url} did not take the bundle for {_PATIENCE_S:.0f} s "
                        f"({type(exc).__name__}); start it, then train again"
                    ) from exc
                _log.warning("mlflow.waiting", error_type=type(exc).__name__, again_in_s=pause_s)
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def _record(self, client: Any, folder: Path, manifest: BundleManifest, metrics: dict[str, float]) -> str:
        experiment = client.get_experiment_by_name(manifest.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(manifest.model)
        tags = {"mlflow.runName": self._run, "modelyard.run": self._run, "modelyard.model": manifest.model}
        run = client.create_run(experiment_id, tags=tags)
        run_id: str = run.info.run_id
        entities = self._entities()
        now_ms = int(time.time() * 1000)
        params = {"estimator": manifest.lineage.estimator, "seed": manifest.lineage.seed} | manifest.lineage.params
        client.log_batch(
            run_id,
            metrics=[entities.Metric(name, value, now_ms, 0) for name, value in metrics.items()],
            params=[entities.Param(name, str(value)) for name, value in params.items()],
        )
        client.log_artifacts(run_id, str(folder), ARTIFACT_PATH)
        client.set_terminated(run_id)
        return run_id

    @staticmethod
    def _entities() -> Any:
        import mlflow.entities  # noqa: PLC0415  # loaded by now

        return mlflow.entities
