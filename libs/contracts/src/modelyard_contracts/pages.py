"""Lists on the wire: a page of items and the cursor of the next one."""

from __future__ import annotations

from typing import Generic, TypeVar

from modelyard_contracts.base import View

__all__ = ["Page"]

T = TypeVar("T")


class Page(View, Generic[T]):
    """Some items, and the cursor to ask for the next ones; no cursor means that these were the last."""

    items: tuple[T, ...]
    next_cursor: str | None = None
