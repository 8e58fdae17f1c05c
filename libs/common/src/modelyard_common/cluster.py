"""The one door to a Kubernetes API server: JSON documents in and out, every call with a deadline, errors in our tree.

The official client brings what is hard (kubeconfig with its plugins, the pod's own account with its rotating token,
TLS); its thousand generated classes are not used, since objects that are plain documents can be compared with golden
files and checked against schemas. Nothing is retried here: whoever calls looks again anyway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from modelyard_common.errors import Conflict, Denied, Invalid, ModelyardError, NotFound, Unauthenticated, Unavailable

__all__ = ["Cluster", "Document"]

Document = dict[str, Any]
"""A Kubernetes object, or a list of them, as JSON has it."""

_MERGE_PATCH = "application/merge-patch+json"
_PIECE_BYTES = 1 << 16
_BY_STATUS: Mapping[int, type[ModelyardError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: Conflict,
    422: Invalid,
}


class Cluster:
    """Calls one API server. Every method raises NotFound, Conflict, Invalid, Denied or Unavailable as the case is.

    Args:
        configuration: address and credentials; see ``connect``.
        timeout_s: the deadline of a call.
    """

    def __init__(self, configuration: Configuration, *, timeout_s: float = 10.0) -> None:
        configuration.retries = 0
        self._client = ApiClient(configuration)
        self._timeout_s = timeout_s

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, *, timeout_s: float = 10.0) -> Self:
        """Return the cluster that a kubeconfig file names, or the one that this pod runs in.

        Raises:
            Invalid: the file cannot be used, or this is no pod with a service account.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)
            else:
                load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        except (ConfigException, OSError) as exc:
            hint = "set kubeconfig when this does not run in a pod" if kubeconfig is None else f"see {kubeconfig}"
            raise Invalid(f"no way to the Kubernetes API: {exc}; {hint}") from exc
        return cls(configuration, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.rest_client.pool_manager.clear()

    def get(self, path: str, **params: Any) -> Document:
        """Return an object, or a list with ``labelSelector`` and the like as parameters."""
        return self._json("GET", path, params=params)

    def create(self, path: str, body: Document) -> Document:
        """Create an object in a collection; raise Conflict when its name is taken."""
        return self._json("POST", path, body=body)

    def replace(self, path: str, body: Document) -> Document:
        """Replace an object; raise Conflict when ``resourceVersion`` is not the newest."""
        return self._json("PUT", path, body=body)

    def patch(self, path: str, body: Document) -> Document:
        """Merge a patch into an object; with a ``resourceVersion`` in it, raise Conflict when another is the newest."""
        return self._json("PATCH", path, body=body, content_type=_MERGE_PATCH)

    def text(self, path: str, **params: Any) -> bytes:
        """Return what is no JSON: a log."""
        with self._call("GET", path, params=params) as response:
            return self._read(response)

    def watch(self, path: str, *, resource_version: str, timeout_s: float) -> Iterator[Document]:
        """Yield the events of a collection after a version; ends after timeout_s, or raises when the stream breaks.

        Raises:
            Conflict: the version is too old; list again.
        """
        params = {
            "watch": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": int(timeout_s),
            "allowWatchBookmarks": "true",
        }
        with self._call("GET", path, params=params, read_timeout_s=timeout_s + self._timeout_s) as response:
            for line in _lines(response):
                event: Document = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(int(event["object"].get("code", 500)), event["object"])
                yield event

    def _json(self, method: str, path: str, **more: Any) -> Document:
        with self._call(method, path, **more) as response:
            document: Document = json.loads(self._read(response))
        return document

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Document | None = None,
        content_type: str = "application/json",
        read_timeout_s: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer with its body not read yet; raise what its status stands for."""
        headers = {"Accept": "application/json, */*"} | ({"Content-Type": content_type} if body is not None else {})
        query = [(key, value) for key, value in (params or {}).items() if value is not None]
        method, url, headers, _, _ = self._client.param_serialize(
            method, path, query_params=query, header_params=headers, auth_settings=["BearerToken"]
        )
        text = json.dumps(body) if body is not None else None
        timeout = urllib3.Timeout(connect=self._timeout_s, read=read_timeout_s or self._timeout_s)
        try:
            response = self._client.rest_client.pool_manager.request(
                method, url, body=text, headers=headers, timeout=timeout, preload_content=False
            )
        except urllib3.exceptions.HTTPError as exc:
            raise Unavailable(f"the Kubernetes API cannot be reached ({type(exc).__name__})") from exc
        if not 200 <= response.status < 300:
            with response:
                raise _error(response.status, _status_of(self._read(response)))
        return response  # type: ignore[no-any-return]  # the client is not typed

    @staticmethod
    def _read(response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read()
        except urllib3.exceptions.HTTPError as exc:
            raise Unavailable(f"the Kubernetes API broke off its answer ({type(exc).__name__})") from exc


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    try:
        # read1 gives what has come: stream would wait until a piece is full.
        while piece := response.read1(_PIECE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line for line in lines if line)
    except urllib3.exceptions.HTTPError as exc:
        raise Unavailable(f"the watch broke ({type(exc).__name__})") from exc


def _status_of(body: bytes) -> Document:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _error(status: int, document: Document) -> ModelyardError:
    """Return the error that an answer stands for, with the server's own words."""
    said = str(document.get("message") or f"the Kubernetes API answered {status}")
    # Quota is a bound on what runs at the same time; the server has no status of its own for it.
    if status == 403 and "exceeded quota" in said:
        return Unavailable(said)
    kind = _BY_STATUS.get(status)
    return kind(said) if kind is not None else Unavailable(said)
