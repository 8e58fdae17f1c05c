"""What the clients share: one connection pool, typed decoding, walks through pages, files made whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from modelyard_common.http import HttpClient
from modelyard_contracts.pages import Page
from pydantic import BaseModel, TypeAdapter

__all__ = ["ApiClient", "write_whole"]

V = TypeVar("V", bound=BaseModel)


def write_whole(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write chunks to path: readers see all of them or the file of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
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
        checks: dict[str, str] = self._http.request("GET", "/health/ready", timeout_s=3.0).json().get("checks", {})
        return checks

    def _get(self, shape: type[V], path: str, **params: Any) -> V:
        return shape.model_validate_json(self._http.request("GET", path, params=params).content)

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
        return shape.model_validate_json(response.content)

    def _pages(self, shape: type[V], path: str, params: Mapping[str, Any] | None = None) -> list[V]:
        adapter: TypeAdapter[Page[V]] = TypeAdapter(Page[shape])  # type: ignore[valid-type]  # shape is a class, known at run time
        items: list[V] = []
        cursor: str | None = None
        while True:
            response = self._http.request("GET", path, params={**(params or {}), "cursor": cursor})
            page = adapter.validate_json(response.content)
            items.extend(page.items)
            if page.next_cursor is None:
                return items
            cursor = page.next_cursor
