"""A server of somebody else, behind our routing, checks, log and drift: MLServer, Triton, BentoML, a Flask app.

Only addresses that the operator has named are asked: what stands in a bundle is somebody's wish. Connections are kept,
every call has a deadline and every answer a bound, and a server that does not answer is left alone for a while.
What it says about its errors stays with it: its words may hold what somebody sent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from modelyard_common.auth.bearer import token_in
from modelyard_common.deadlines import CallDeadline
from modelyard_common.errors import Invalid, Overloaded, Unauthenticated, Unavailable
from modelyard_common.http import CircuitBreaker
from modelyard_common.trust import trust_for
from modelyard_contracts.bundle_v1 import RemoteServer, Signature

from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.runtimes.forms import as_predicted
from modelyard_bundle.signature import Columns

__all__ = ["RemoteFailed", "RemoteRuntime", "check_host", "host_of"]

_MOST_BYTES = 256 * 1024**2
_MOST_CONNECTIONS = 32
_BREAKER_FAILURES = 5
_BREAKER_OPEN_S = 2.0
_AWAY = frozenset({502, 503})
_DENIED = frozenset({401, 403})


class RemoteFailed(Exception):
    """The server refused the request, or answered with what is no answer."""


def host_of(server: RemoteServer) -> str:
    """Return a server's host and port, as an operator names it."""
    url = httpx.URL(server.url)
    return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def check_host(server: RemoteServer, allowed: Iterable[str]) -> None:
    """Raise Invalid unless the server's host and port are among those that the operator has named."""
    host = host_of(server)
    if host not in set(allowed):
        raise Invalid(
            f"remote.url: {host} is not among the servers that may be asked; "
            f'an operator allows it with MODELYARD_INFERENCE_REMOTE_HOSTS=["{host}"]'
        )


class RemoteRuntime:
    """Asks a server. Thread safe.

    Args:
        timeout_s: of one call.
        token_file: holds a bearer token; read for each call, so that a rotated one is taken.

    Attributes:
        client: its connections, which whoever made the runtime closes.
    """

    name = "remote"
    blocking = True

    def __init__(
        self, server: RemoteServer, signature: Signature, *, timeout_s: float, token_file: Path | None = None
    ) -> None:
        if server.tensors == "matrix" and any(column.type == "category" for column in signature.features):
            raise Invalid("remote.tensors: a matrix holds numbers, and the signature has categories; use columns")
        if server.protocol == "open-inference" and not server.model:
            raise Invalid("remote.model: the Open Inference Protocol asks for a model by its name")
        self._server = server
        self._signature = signature
        self._timeout_s = timeout_s
        self._token_file = token_file
        self._breaker = CircuitBreaker(_BREAKER_FAILURES, _BREAKER_OPEN_S, trial_s=timeout_s)
        self._path = _path(server)
        # Redirects are not followed: they would lead to where nobody has allowed.
        self.client = httpx.Client(
            base_url=server.url.rstrip("/"),
            timeout=timeout_s,
            trust_env=False,
            verify=trust_for(server.url),
            limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS),
        )
        self._deadline = CallDeadline(self.client)

    @property
    def problem(self) -> str:
        """Why it is not asked now; empty when it is."""
        return "it has not answered for a while" if self._breaker.is_open else ""

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked.

        Raises:
            Overloaded: it says that it has too much to do.
            Unavailable: it does not answer, or says that it cannot now.
            RemoteFailed: it refused, or answered with nonsense.
        """
        found = self._posted(self._asked(columns))
        try:
            if self._server.protocol == "open-inference":
                table = _output(msgspec.json.decode(found), self._server.output)
            else:
                table = _predictions(msgspec.json.decode(found), self._server.output)
            predicted = as_predicted(self._signature, table, self._server.answers)
        except (Invalid, msgspec.DecodeError, KeyError, IndexError, StopIteration, TypeError, ValueError) as exc:
            raise RemoteFailed("what it answered is no answer") from exc
        if len(predicted.labels) != len(next(iter(columns.values()))):
            raise RemoteFailed("it answered for another number of rows")
        return predicted

    def _posted(self, body: bytes) -> bytes:
        headers = self._headers()
        if not self._breaker.allows():
            raise Unavailable("the server that runs this model has not answered for a while", retry_after_s=1)
        deadline = time.monotonic() + self._timeout_s
        try:
            with (
                self._deadline.until(deadline),
                self.client.stream("POST", self._path, content=body, headers=headers) as response,
            ):
                content = _read(response, deadline)
        except httpx.HTTPError as exc:
            self._breaker.failed()
            kind = type(exc).__name__
            raise Unavailable(f"the server that runs this model cannot be reached ({kind})", retry_after_s=1) from exc
        if response.status_code in _AWAY:
            self._breaker.failed()
            raise Unavailable("the server that runs this model is not ready", retry_after_s=_wait_s(response))
        self._breaker.succeeded()
        if response.status_code == 429:
            raise Overloaded("the server that runs this model has too much to do", retry_after_s=_wait_s(response))
        if response.status_code == 504:
            raise Unavailable("the server that runs this model was late", retry_after_s=1)
        if response.status_code in _DENIED:
            raise RemoteFailed(f"it does not let us in (status {response.status_code}): it wants a token, or another")
        if not response.is_success:
            raise RemoteFailed(f"it answered with status {response.status_code}")
        return content

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self._token_file is not None:
            try:
                token = token_in(self._token_file, "the file with the token for the server that runs this model")
            except Unauthenticated as exc:  # ours, and not whoever asks for a prediction
                raise Unavailable(exc.message, retry_after_s=1) from exc
            headers["authorization"] = f"Bearer {token}"
        return headers

    def _asked(self, columns: Columns) -> bytes:
        features = self._signature.features
        if self._server.protocol == "mlflow-scoring":
            lists = [_values(columns[column.name], column.type) for column in features]
            rows = list(zip(*lists, strict=True))
            names = [column.name for column in features]
            return msgspec.json.encode({"dataframe_split": {"columns": names, "data": rows}})
        if self._server.tensors == "matrix":
            matrix = np.stack([columns[column.name] for column in features], axis=1)
            if not np.isfinite(matrix).all():
                raise Invalid("a feature is missing, and the server that runs this model takes complete rows only")
            tensor = {"name": self._server.input, "shape": matrix.shape, "datatype": "FP32"}
            return msgspec.json.encode({"inputs": [tensor | {"data": matrix.ravel().tolist()}]})
        inputs = []
        for column in features:
            values = _values(columns[column.name], column.type)
            if None in values:
                raise Invalid(f"{column.name}: is required by the server that runs this model")
            datatype = {"category": "BYTES", "boolean": "BOOL", "integer": "INT64"}.get(column.type, "FP32")
            inputs.append({"name": column.name, "shape": [len(values), 1], "datatype": datatype, "data": values})
        return msgspec.json.encode({"inputs": inputs})


def _path(server: RemoteServer) -> str:
    if server.protocol == "mlflow-scoring":
        return "/invocations"
    version = f"/versions/{server.version}" if server.version else ""
    return f"/v2/models/{server.model}{version}/infer"


def _read(response: httpx.Response, deadline: float) -> bytes:
    """Return a whole answer, that is not longer than is taken and does not drip past the deadline."""
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > _MOST_BYTES or time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer did not end", request=response.request)
    return bytes(content)


def _wait_s(response: httpx.Response) -> float:
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdigit() and len(told) < 5 else 1.0


def _values(values: Any, kind: str) -> list[Any]:
    if kind == "category":
        return list(values)
    plain: list[Any] = [None if math.isnan(value) else value for value in values.tolist()]
    if kind == "boolean":
        return [value if value is None else bool(value) for value in plain]
    return [value if value is None else int(value) for value in plain] if kind == "integer" else plain


def _output(answer: Any, name: str) -> Any:
    outputs = answer["outputs"]
    chosen = next(output for output in outputs if output["name"] == name) if name else outputs[0]
    table = np.asarray(chosen["data"])
    return table.reshape(chosen["shape"])


def _predictions(answer: Any, name: str) -> Any:
    found = answer["predictions"]
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return np.asarray([[row[name]] if name else list(row.values()) for row in found])
    return np.asarray(found)
