"""The training service's client: dataset versions, runs, logs, evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.pages import Page
from modelyard_contracts.training_v1 import DatasetView, RunReport, RunView, SubmitRunRequest

from modelyard_client.base import ApiClient, write_whole

__all__ = ["TrainingClient"]

_CHUNK_BYTES = 1 << 20
_TRANSFER_TIMEOUT_S = 300.0
_MEDIA_TYPES = {".parquet": "application/vnd.apache.parquet", ".csv": "text/csv"}


class TrainingClient(ApiClient):
    """Calls training. Every method raises NotFound, Invalid, Conflict, Denied or Unavailable as the case is."""

    service = "training"

    def submit(self, request: SubmitRunRequest, *, idempotency_key: str | None = None) -> RunView:
        """Ask for a run; with a key, asking twice runs once."""
        return self._send(RunView, "POST", "/v1/runs", request, idempotency_key=idempotency_key)

    def run(self, run: str) -> RunView:
        """Return a run."""
        return self._get(RunView, f"/v1/runs/{run}")

    def runs(self, model: str | None = None) -> list[RunView]:
        """Return runs, newest first."""
        return self._pages(RunView, "/v1/runs", {"model": model})

    def latest_run(self, model: str) -> RunView | None:
        """Return the newest run of a model."""
        response = self._http.request("GET", "/v1/runs", params={"model": model, "limit": 1})
        return next(iter(self._read(Page[RunView], response).items), None)

    def cancel(self, run: str) -> RunView:
        """End a run."""
        return self._send(RunView, "POST", f"/v1/runs/{run}/cancel")

    def logs(self, run: str, offset: int = 0) -> str:
        """Return what a run wrote, from a byte offset on."""
        return self._http.request("GET", f"/v1/runs/{run}/logs", params={"offset": offset}).text

    def evaluation(self, run: str) -> Evaluation:
        """Return the Evaluation record of a run."""
        return self._get(Evaluation, f"/v1/runs/{run}/evaluation")

    def report(self, run: str, report: RunReport, *, timeout_s: float | None = None) -> RunView:
        """Tell how a run goes; called by the job."""
        return self._send(
            RunView,
            "POST",
            f"/v1/runs/{run}/reports",
            report,
            idempotency_key=f"{run}-{report.seq}",
            timeout_s=timeout_s,
        )

    def upload_dataset(self, path: Path, *, name: str = "") -> DatasetView:
        """Make a dataset version of a Parquet or CSV file; the same rows give the same version."""
        media_type = _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
        response = self._http.request(
            "POST",
            "/v1/datasets",
            params={"name": name or None},
            content=_chunks(path),
            headers={"content-type": media_type},
            timeout_s=_TRANSFER_TIMEOUT_S,
        )
        return self._read(DatasetView, response)

    def datasets(self) -> list[DatasetView]:
        """Return all dataset versions, newest first."""
        return self._pages(DatasetView, "/v1/datasets")

    def dataset(self, digest: str) -> DatasetView:
        """Return a dataset version."""
        return self._get(DatasetView, f"/v1/datasets/{digest}")

    def download_dataset(self, digest: str, into: Path) -> Path:
        """Write a dataset version to a Parquet file."""
        with self._http.stream("GET", f"/v1/datasets/{digest}/content", timeout_s=60.0) as response:
            return write_whole(into, response.iter_bytes(_CHUNK_BYTES))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            yield chunk
