"""MLflow's REST API as the registry uses it: runs, artifacts, and the model registry that mirrors ours.

The one door to MLflow for our own calls; what other people ask of MLflow goes through ``mlflow_proxy``. Every call
has a deadline. Its library is not used: it would bring half a gigabyte and its own retries of four minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from modelyard_common.errors import Invalid, ModelyardError, NotFound, Unavailable
from modelyard_common.tracing import outgoing
from modelyard_common.trust import trust_for

__all__ = ["Artifacts", "MlflowRest", "client"]

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


def client(base_url: str, *, connect_s: float = 2.0, read_s: float = 15.0) -> httpx.Client:
    """Return an HTTP client for MLflow with deadlines; the caller closes it."""
    timeout = httpx.Timeout(read_s, connect=connect_s)
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=8)
    return httpx.Client(
        base_url=base_url,
        timeout=timeout,
        limits=limits,
        trust_env=False,
        follow_redirects=False,
        verify=trust_for(base_url),
        event_hooks={"request": [lambda request: request.headers.update(outgoing())]},
    )


class MlflowRest:
    """JSON calls with MLflow's errors turned into ours."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def ping(self) -> None:
        """Raise Unavailable unless MLflow answers."""
        self._send("GET", "/health")

    def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer of a GET under ``/api/2.0/mlflow``."""
        return self._json(self._send("GET", f"/api/2.0/mlflow/{path}", params=dict(params)))

    def call(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of a call with a JSON body."""
        return self._json(self._send(method, f"/api/2.0/mlflow/{path}", json=dict(body)))

    def list_artifacts(self, root: str) -> list[dict[str, Any]]:
        """Return the files and folders directly under an artifact path."""
        answer = self._json(self._send("GET", ARTIFACTS, params={"path": root}))
        return list(answer.get("files", []))

    @contextmanager
    def stream(self, path: str, params: Mapping[str, str] | None = None) -> Iterator[Iterator[bytes]]:
        """Yield the bytes of an answer in chunks."""
        try:
            with self._http.stream("GET", path, params=dict(params or {})) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error(response)
                yield response.iter_bytes(256 * 1024)
        except httpx.TransportError as exc:
            raise self._away(exc) from exc

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as exc:
            raise self._away(exc) from exc
        if response.status_code >= 400:
            raise _error(response)
        return response

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError as exc:
            raise Unavailable("MLflow answered with something that is not JSON") from exc
        return answer if isinstance(answer, dict) else {}

    def _away(self, exc: httpx.TransportError) -> Unavailable:
        return Unavailable(f"MLflow cannot be reached at {self._http.base_url}: {type(exc).__name__}")


def _error(response: httpx.Response) -> ModelyardError:
    """Return our error for MLflow's ``error_code`` and ``message``."""
    code, message = "", response.text[:300]
    try:
        body = response.json()
        code, message = str(body.get("error_code", "")), str(body.get("message", message))[:500]
    except (ValueError, AttributeError):
        pass
    if response.status_code >= 500 or response.status_code == 429:
        return Unavailable(f"MLflow is not able to answer ({response.status_code}): {message}")
    if response.status_code == 404 or code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(f"MLflow: {message}")
    return MlflowRefused(code, f"MLflow refused ({response.status_code} {code}): {message}")


class MlflowRefused(Invalid):
    """MLflow refused a request; ``code`` is its own name for why."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class Artifacts:
    """The artifacts of runs."""

    def __init__(self, rest: MlflowRest) -> None:
        self._rest = rest

    def root(self, run_id: str, artifact_path: str) -> str:
        """Return where a run's artifacts lie, as the path that the artifact API takes.

        Raises:
            NotFound: there is no such run.
            Invalid: the run keeps its artifacts where MLflow does not serve them.
        """
        if ".." in artifact_path.split("/"):
            raise Invalid("artifact_path is a path inside of the run's artifacts")
        run = self._rest.get("runs/get", {"run_id": run_id})
        uri = str(run.get("run", {}).get("info", {}).get("artifact_uri", ""))
        parts = urlsplit(uri)
        if parts.scheme != "mlflow-artifacts":
            raise Invalid(
                f"run {run_id} keeps its artifacts at {uri[:200]!r}, which MLflow does not serve; start MLflow with "
                "--serve-artifacts and an --artifacts-destination"
            )
        return f"{parts.path.strip('/')}/{artifact_path.strip('/')}".strip("/")

    def files(self, root: str, *, limit: int) -> list[str]:
        """Return the paths of all files below root, relative to it; raise Invalid above limit."""
        found: list[str] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            for item in self._rest.list_artifacts(f"{root}/{folder}".rstrip("/")):
                path = f"{folder}/{item['path']}".lstrip("/")
                (folders if item.get("is_dir") else found).append(path)
            if len(found) + len(folders) > limit:
                raise Invalid(f"the bundle has more than {limit} files")
        return found

    @contextmanager
    def open(self, root: str, path: str) -> Iterator[Iterator[bytes]]:
        """Yield the bytes of one file in chunks."""
        with self._rest.stream(f"{ARTIFACTS}/{quote(f'{root}/{path}')}") as chunks:
            yield chunks
