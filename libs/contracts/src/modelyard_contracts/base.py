"""The base of every wire shape: frozen, strict about unknown fields where people write, lenient where we read.

Requests refuse unknown fields, so that a typing mistake is an error and not a silence. Responses ignore
them, so that an older reader survives a newer writer: shapes are additive within a version.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Request", "StoredText", "UtcTime", "View", "Wire"]


def _as_utc(value: datetime) -> datetime:
    """Return value in UTC; a naive time is refused, since nobody can tell which hour it means."""
    if value.tzinfo is None:
        raise ValueError("a time needs an offset, for example 2026-01-31T12:00:00Z")
    return value.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
"""A point in time with an offset, kept in UTC."""


StoredText = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A text that a database can hold: PostgreSQL takes no NUL character."""


class Wire(BaseModel):
    """What all shapes share: values do not change once read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, ser_json_timedelta="float")


class Request(Wire):
    """A shape that somebody sends us: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class View(Wire):
    """A shape that we answer with: a reader ignores what it does not know."""
