"""A real PostgreSQL for the drill."""

from __future__ import annotations

from modelyard_common.testing.databases import postgres_server

__all__ = ["postgres_server"]
