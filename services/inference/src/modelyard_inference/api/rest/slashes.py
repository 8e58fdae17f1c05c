"""A router whose paths also answer with a slash at the end: clients of the protocols write both, and follow no 307."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

__all__ = ["SlashRouter"]


class SlashRouter(APIRouter):
    """Adds each route twice; OpenAPI shows the one without the slash."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route with and without a slash at its end."""
        path = path.rstrip("/")
        if not path and not self.prefix:
            super().add_api_route("/", endpoint, **options)
            return
        super().add_api_route(path, endpoint, **options)
        super().add_api_route(f"{path}/", endpoint, **(options | {"include_in_schema": False}))
