"""Passes reads on to MLflow: bounded, with deadlines, without the caller's credentials.

While MLflow is away a caller hears so at once, with a ``Retry-After`` that keeps stock clients from waiting minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import httpx
from modelyard_common.errors import TooLarge, Unavailable

from modelyard_registry.usecases.ports import Passed

__all__ = ["MlflowProxy"]

REQUEST_HEADERS: Final = ("accept", "content-type", "range", "if-none-match", "if-modified-since", "if-range")
"""What MLflow may know of a request; credentials, cookies and forwarding headers stay here."""

RESPONSE_HEADERS: Final = (
    "content-type",
    "content-length",
    "content-range",
    "content-disposition",
    "accept-ranges",
    "etag",
    "last-modified",
    "cache-control",
)


class MlflowProxy:
    """Forwards one request at a time; whoever asks has checked that it may pass."""

    def __init__(self, http: httpx.Client, *, max_bytes: int, deadline_s: float) -> None:
        self._http = http
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s

    def forward(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Passed:
        """Send a request on and return the answer, whose body is still to be read.

        Raises:
            Unavailable: MLflow does not answer.
            TooLarge: it announces more than the bound.
        """
        ends = time.monotonic() + self._deadline_s
        kept = {name: headers[name] for name in REQUEST_HEADERS if name in headers}
        kept["accept-encoding"] = "identity"
        base = self._http.base_url
        url = base.copy_with(path=base.path.rstrip("/") + path, query=query.encode() or None)
        request = self._http.build_request(method, url, headers=kept, content=body or None)
        try:
            response = self._http.send(request, stream=True)
        except httpx.TransportError as exc:
            raise Unavailable(f"MLflow cannot be reached ({type(exc).__name__}); try again", retry_after_s=1) from exc
        if int(response.headers.get("content-length", 0)) > self._max_bytes:
            response.close()
            raise TooLarge(f"MLflow's answer is larger than {self._max_bytes} bytes")
        if response.is_redirect:
            response.close()
            raise Unavailable("MLflow answered with a redirect, which is not followed", retry_after_s=1)
        shown = {name: response.headers[name] for name in RESPONSE_HEADERS if name in response.headers}
        return Passed(response.status_code, shown, self._body(response, ends))

    def _body(self, response: httpx.Response, ends: float) -> Iterator[bytes]:
        """Yield the answer's bytes; breaks off, so that the reader notices, at the bound or the deadline."""
        size = 0
        try:
            for chunk in response.iter_raw(256 * 1024):
                size += len(chunk)
                if size > self._max_bytes or time.monotonic() > ends:
                    raise Unavailable("MLflow's answer exceeds its bound in size or time")
                yield chunk
        finally:
            response.close()
