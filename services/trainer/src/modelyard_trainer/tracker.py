"""The one door to MLflow's library: experiment, run, parameters, metrics, artifacts, and model folders of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from modelyard_common.errors import Invalid
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.settings import tell_mlflow

__all__ = ["ARTIFACT_PATH", "MlflowTracker", "skops_file"]

_log = get_logger(__name__)
ARTIFACT_PATH = "bundle"
T = TypeVar("T")
_PATIENCE_S = 90.0
"""An MLflow server takes about eleven seconds to start; more than this is an outage, and the run says so."""
_LATER = frozenset({408, 429})
"""Statuses of a refusal that may be another answer a moment later."""


class MlflowTracker:
    """Tracks a run in MLflow.

    Importing MLflow takes a second, so a thread does it while rows are loaded and the model is fitted.

    Args:
        url: of the server.
        run: our run's id; kept as a tag.
        token_file: holds the bearer token, when the platform asks for one.
        patience_s: how long the server may be away.
    """

    def __init__(self, url: str, *, run: str, token_file: Path | None = None, patience_s: float = _PATIENCE_S) -> None:
        tell_mlflow(token_file)
        self._url = url
        self._run = run
        self._patience_s = patience_s
        self._modules: tuple[Any, Any] | None = None
        self._importer = threading.Thread(target=self._import, name="import-mlflow", daemon=True)
        self._importer.start()

    def _import(self) -> None:
        import mlflow.entities  # noqa: PLC0415  # slow, see above
        import mlflow.tracking  # noqa: PLC0415

        self._modules = mlflow.tracking, mlflow.entities

    def track(self, folder: Path, manifest: BundleManifest, metrics: dict[str, float]) -> str:
        """Record a run and its bundle; return MLflow's run id. What is done already is not done again.

        Raises:
            RunFailed: MLflow refused, or was away for longer than the patience.
        """
        self._importer.join()
        if self._modules is None:
            raise RunFailed("mlflow-skinny could not be imported in the training job")
        tracking, entities = self._modules
        client = tracking.MlflowClient(tracking_uri=self._url, registry_uri=self._url)
        run_id = self._patiently(lambda: self._begin(client, manifest))
        now_ms = int(time.time() * 1000)
        params = {"estimator": manifest.lineage.estimator, "seed": manifest.lineage.seed} | manifest.lineage.params
        recorded = {
            "metrics": [entities.Metric(name, value, now_ms, 0) for name, value in metrics.items()],
            "params": [entities.Param(name, str(value)) for name, value in params.items()],
        }
        self._patiently(lambda: client.log_batch(run_id, **recorded))
        self._patiently(lambda: client.log_artifacts(run_id, str(folder), ARTIFACT_PATH))
        self._patiently(lambda: client.set_terminated(run_id))
        return run_id

    def _begin(self, client: Any, manifest: BundleManifest) -> str:
        experiment = client.get_experiment_by_name(manifest.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(manifest.model)
        tags = {"mlflow.runName": self._run, "modelyard.run": self._run, "modelyard.model": manifest.model}
        run_id: str = client.create_run(experiment_id, tags=tags).info.run_id
        return run_id

    def _patiently(self, act: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.5
        while True:
            try:
                return act()
            except Exception as exc:  # mlflow raises requests', urllib3's and its own
                if _is_refusal(exc):
                    raise RunFailed(f"MLflow at {self._url} refuses the run: {str(exc)[:300]}") from exc
                if time.monotonic() + pause_s > deadline:
                    raise RunFailed(
                        f"MLflow at {self._url} did not take the run for {self._patience_s:.0f} s "
                        f"({type(exc).__name__}); start it, then try again"
                    ) from exc
                _log.warning("mlflow.waiting", error_type=type(exc).__name__, again_in_s=pause_s)
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)


def skops_file(path: Path) -> Path:
    """Return the skops file that path is, or that an MLflow model folder holds.

    Raises:
        Invalid: it is neither; a model that was saved as a pickle is refused, with what to do instead.
    """
    if path.is_file():
        if path.suffix != ".skops":
            raise Invalid(f"{path.name} is no .skops file: write the model with skops.io.dump; pickles are refused")
        return path
    import mlflow.models  # noqa: PLC0415  # slow, see above

    try:
        flavor = mlflow.models.Model.load(str(path)).flavors.get("sklearn")
    except Exception as exc:  # mlflow raises its own and yaml's
        raise Invalid(f"{path.name} is no MLflow model folder: its MLmodel cannot be read") from exc
    if flavor is None:
        raise Invalid(f"{path.name} is no scikit-learn model; only these can be brought")
    if flavor.get("serialization_format") != "skops":
        raise Invalid(
            f"{path.name} holds a pickle, which is refused: save it again with "
            'mlflow.sklearn.save_model(…, serialization_format="skops")'
        )
    found = path / str(flavor.get("pickled_model"))
    if not found.resolve().is_relative_to(path.resolve()) or not found.is_file():
        raise Invalid(f"{path.name}: there is no {flavor.get('pickled_model')} in it, which its MLmodel names")
    return found


def _is_refusal(exc: Exception) -> bool:
    """Return whether an error is an answer that will stay the same."""
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if status is None and hasattr(exc, "get_http_status_code"):
        status = exc.get_http_status_code()
    # Two first runs of one experiment at the same time: the second one finds it when it looks again.
    exists_by_now = getattr(exc, "error_code", "") == "RESOURCE_ALREADY_EXISTS"
    return isinstance(status, int) and 400 <= status < 500 and status not in _LATER and not exists_by_now
