"""What the clients share: one connection pool, typed decoding, walks through pages, files made whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from modelyard_common.errors import Unavailable
from modelyard_common.http import HttpClient
from modelyard_contracts.pages import Page
from pydantic import BaseModel, ValidationError

__all__ = ["ApiClient", "write_whole"]

V = TypeVar("V", bound=BaseModel)
Item = TypeVar("Item")


class _Ready(BaseModel):
    checks: dict[str, str] = {}


def write_whole(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write chunks to path: readers see all of them or the file of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as handle:
            for chunk in chunks:
                handle.write(chunk)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


class ApiClient:
    """A client of one service; a context manager that closes its connections.

    Args:
        base_url: of the service.
        token_file: holds the bearer token, when the platform asks for one.
        timeout_s: the deadline of a call.
    """

    service = "service"

    def __init__(
        self,
        base_url: str,
        *,
        token_file: Path | None = None,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = HttpClient(
            base_url, service=self.service, token_file=token_file, timeout_s=timeout_s, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Where the service is."""
        return self._http.base_url

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def health(self) -> dict[str, str]:
        """Return the named checks of the service. Raise Unavailable when it is not ready."""
        return self._read(_Ready, self._http.request("GET", "/health/ready", timeout_s=3.0)).checks

    def _get(self, shape: type[V], path: str, **params: Any) -> V:
        return self._read(shape, self._http.request("GET", path, params=params))

    def _read(self, shape: type[V], response: httpx.Response) -> V:
        return self._shaped(shape, response.content)

    def _shaped(self, shape: type[V], content: bytes) -> V:
        """Return an answer as its shape; whatever else answers there, it is not the service."""
        try:
            return shape.model_validate_json(content)
        except ValidationError as exc:
            name = shape.__name__.partition("[")[0].lstrip("_")
            raise Unavailable(f"{self.service} at {self._http.shown_url} answered something that is no {name}") from exc

    def _send(
        self,
        shape: type[V],
        method: str,
        path: str,
        body: BaseModel | None = None,
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> V:
        content = body.model_dump_json(exclude_unset=True).encode() if body is not None else None
        headers = {"content-type": "application/json"} if content is not None else None
        response = self._http.request(
            method, path, content=content, headers=headers, idempotency_key=idempotency_key, timeout_s=timeout_s
        )
        return self._read(shape, response)

    def _pages(self, shape: type[V], path: str, params: Mapping[str, Any] | None = None) -> list[V]:
        return self._walk(Page[shape], path, params)  # type: ignore[valid-type]  # shape is a class, known at run time

    def _walk(self, page_of: type[Page[Item]], path: str, params: Mapping[str, Any] | None = None) -> list[Item]:
        items: list[Item] = []
        seen: set[str | None] = {None}
        cursor: str | None = None
        while True:
            response = self._http.request("GET", path, params={**(params or {}), "cursor": cursor})
            page = self._read(page_of, response)
            items.extend(page.items)
            if (cursor := page.next_cursor) is None:
                return items
            if cursor in seen:
                raise Unavailable(f"{self.service} at {self._http.shown_url} gives pages that go in a circle")
            seen.add(cursor)
