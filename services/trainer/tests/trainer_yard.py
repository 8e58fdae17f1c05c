"""A small yard to train in: a real MLflow server, a real registry, a real training service, and a drift that is played.

The played drift answers what a run asks of it (labelled rows and status) from tables that a test puts in.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import FastAPI, Response
from modelyard_client import DriftClient, RegistryClient, TrainingClient
from modelyard_common.clock import SystemClock
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import free_port, running
from modelyard_contracts.drift_v1 import DriftStatus
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec, parse_manifest
from modelyard_contracts.registry_v1 import ModelView, VersionView
from modelyard_contracts.training_v1 import JobSpec, RunTrigger
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build as build_registry
from modelyard_trainer.context import Reporter, RunContext
from modelyard_trainer.pipeline import run
from modelyard_trainer.tracker import MlflowTracker
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build as build_training

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def wait_until(condition: Any, *, within_s: float = 60.0) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def mlflow_process(folder: Path) -> Iterator[str]:
    """Serve MLflow from a folder; give its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rpartition(":")[2],
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | QUIET, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: _answers(url) or process.poll() is not None, within_s=90)
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait(20)


def _answers(url: str, path: str = "/health") -> bool:
    try:
        return httpx.get(f"{url}{path}", trust_env=False).is_success
    except httpx.TransportError:
        return False


@dataclass
class PlayedDrift:
    """Answers as drift does, from the labelled rows of each model."""

    labelled: dict[str, pd.DataFrame] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/v1/models/{model}/labelled")(self.labelled_rows)
        app.get("/v1/models/{model}/status")(self.status)
        return app

    def labelled_rows(self, model: str, until: int | None = None) -> Response:
        frame = self.labelled.get(model, pd.DataFrame({"__label_seq": pd.Series([], dtype="int64")}))
        if until is not None:
            frame = frame[frame["__label_seq"] <= until]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), buffer)
        return Response(buffer.getvalue(), media_type="application/vnd.apache.parquet")

    def status(self, model: str) -> DriftStatus:
        rows = len(self.labelled.get(model, ()))
        newest = int(self.labelled[model]["__label_seq"].max()) if rows else 0
        return DriftStatus(
            model=model, requests=rows, ingest_seq=rows, processed_seq=rows, label_seq=newest, labels=rows,
            labels_waiting=0, labels_missing=0,
        )  # fmt: skip


def as_labelled(frame: pd.DataFrame, *, target: str, at: str, first_seq: int = 1) -> pd.DataFrame:
    """Return rows as drift hands them over: the truth as a label, in the order of event time."""
    return frame.drop(columns=[target, at]).assign(
        __prediction_id=[f"p{i}/0" for i in range(len(frame))],
        __event_time=frame[at],
        __label_seq=np.arange(first_seq, first_seq + len(frame)),
        __label=frame[target],
        __prediction=frame[target],
        __version="sha256:" + "0" * 64,
    )


@dataclass
class Yard:
    """The services, and what a test does with them."""

    root: Path
    mlflow_url: str
    registry: RegistryClient
    training: TrainingClient
    drift: DriftClient
    played: PlayedDrift
    runs: int = 0

    def upload(self, frame: pd.DataFrame, name: str = "rows") -> str:
        path = self.root / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        return f"dataset://{self.training.upload_dataset(path, name=name).digest}"

    def apply(self, name: str, spec: Mapping[str, Any]) -> ModelView:
        manifest = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ManagedModel", "metadata": {"name": name}}
        return self.registry.apply(parse_manifest({**manifest, "spec": spec}))

    def job(self, name: str, *, until: int | None = None, **changes: Any) -> JobSpec:
        self.runs += 1
        view = self.registry.model(name)
        work = self.root / f"{name}-{self.runs}"
        work.mkdir()
        whole = {
            "run": f"{name}-{self.runs}",
            "model": name,
            "spec": view.spec,
            "training_digest": view.training_digest,
            "trigger": RunTrigger(kind="spec" if until is None else "drift"),
            "until_label_seq": until,
            "training_url": self.training.base_url,
            "registry_url": self.registry.base_url,
            "drift_url": self.drift.base_url,
            "mlflow_url": self.mlflow_url,
            "timeout_s": 300.0,
            "work_dir": str(work),
        }
        return JobSpec(**(whole | changes))

    def train(self, name: str, *, until: int | None = None, **changes: Any) -> VersionView:
        """Do a run in this process: imports are the cost of a job, and one process pays them once."""
        job = self.job(name, until=until, **changes)
        work = Path(job.work_dir)
        return run(
            RunContext(
                job=job,
                spec=ManagedModelSpec.model_validate(job.spec),
                work_dir=work,
                training=self.training,
                registry=self.registry,
                drift=self.drift,
                tracker=MlflowTracker(job.mlflow_url, run=job.run),
                reporter=Reporter(self.training, job.run, work / "exit.json"),
                clock=SystemClock(),
            )
        )


@contextmanager
def yard_of(root: Path, mlflow_url: str, *, supervised: bool = False) -> Iterator[Yard]:
    """Serve registry and training beside an MLflow; a supervised training service is a process and starts jobs."""
    played = PlayedDrift()
    database = Database(f"sqlite:///{root / 'registry.db'}")
    upgrade(database, "modelyard_registry")
    with ExitStack() as stack:
        drift_url = stack.enter_context(running(played.app()))
        settings = RegistrySettings(data_dir=root / "registry", mlflow_url=mlflow_url, drift_url=drift_url, drain_s=0)
        registry_url = stack.enter_context(running(build_registry(settings, database)))
        around = {"registry_url": registry_url, "drift_url": drift_url, "mlflow_url": mlflow_url}
        serve = _training_process if supervised else _training_thread
        training_url = stack.enter_context(serve(root / "training", around))
        clients = RegistryClient(registry_url), TrainingClient(training_url), DriftClient(drift_url)
        for client in clients:
            stack.callback(client.close)
        yield Yard(root, mlflow_url, *clients, played)


@contextmanager
def _training_thread(root: Path, around: Mapping[str, str]) -> Iterator[str]:
    root.mkdir()
    database = Database(f"sqlite:///{root / 'training.db'}")
    upgrade(database, "modelyard_training")
    settings = TrainingSettings(data_dir=root, drain_s=0, **around)
    with running(build_training(settings, database, background=False)) as url:
        yield url


@contextmanager
def _training_process(root: Path, around: Mapping[str, str]) -> Iterator[str]:
    root.mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    own = {"port": url.rpartition(":")[2], "data_dir": str(root), "drain_s": "0", "job_niceness": "0", **around}
    environment = os.environ | {f"MODELYARD_TRAINING_{name.upper()}": value for name, value in own.items()}
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard_training.main"], env=environment, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: _answers(url, "/health/ready") or process.poll() is not None)
        assert process.poll() is None, (root / "log").read_text()[-3000:]
        yield url
    finally:
        process.terminate()
        process.wait(20)


def stream(rows: int, *, seed: int = 1, start: datetime = EPOCH, flipped: bool = False) -> pd.DataFrame:
    """Return rows with a rule to learn, a minute apart: y is 1 where a + b is positive, or negative if flipped."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame({name: generator.normal(size=rows) for name in ("a", "b", "c")})
    above = (frame["a"] + frame["b"] > 0) != flipped
    return frame.assign(y=above.astype("int64"), at=[start + timedelta(minutes=i) for i in range(rows)])


def policy(uri: str, **changes: Any) -> dict[str, Any]:
    """Return a spec for ``stream``; changes replace whole parts."""
    whole = {
        "task": "classification",
        "data": {"source": {"uri": uri}, "target": "y", "positiveClass": 1, "timestamp": "at"},
        "train": {
            "recipe": {"estimator": "logistic_regression"},
            "split": {"by": "time", "test": 0.25},
            "seed": 7,
        },
        "gate": [{"metric": "accuracy", "min": 0.7}],
    }
    return whole | changes
