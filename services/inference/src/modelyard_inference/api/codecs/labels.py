"""What comes with the rows: when they happened, which key routes them, whether they are logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modelyard_common.errors import Invalid

__all__ = ["LONGEST_KEY", "event_times_from", "key_text", "logged_from", "routing_key_from", "times_from_header"]

LONGEST_KEY = 512
_SECONDS = re.compile(r"-?\d+\.?\d*", re.ASCII)


def event_times_from(value: Any, path: str = "event_time") -> tuple[datetime, ...]:
    """Return event times: one for all rows or one a row; RFC 3339 text or seconds since 1970. Raise Invalid."""
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(_time(item, f"{path}[{row}]") for row, item in enumerate(value))
    return (_time(value, path),)


def times_from_header(text: str) -> tuple[datetime, ...]:
    """Return the event times of a header: one, or several with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    return event_times_from(parts if len(parts) > 1 else parts[0], "modelyard-event-time")


def routing_key_from(parameters: Mapping[str, Any], header: str | None) -> str | None:
    """Return the routing key: the parameter, else the header. Raise Invalid."""
    key = parameters.get("routing_key", header)
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        raise Invalid.at("routing_key", f"must be a text of 1 to {LONGEST_KEY} characters, none of them NUL")
    return key


def key_text(value: bytes) -> str:
    """Return the routing key of a header. Raise Invalid: read otherwise than in a body, it would be another key."""
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise Invalid.at("modelyard-routing-key", "is not UTF-8") from exc


def logged_from(parameters: Mapping[str, Any], header: str | None) -> bool:
    """Return whether a request is logged: the parameter, else the header, else it is. Raise Invalid."""
    if "log" in parameters:
        if not isinstance(value := parameters["log"], bool):
            raise Invalid.at("log", "must be true or false")
        return value
    if header is None:
        return True
    if header not in ("true", "false"):
        raise Invalid.at("modelyard-log", "must be true or false")
    return header == "true"


def _time(value: Any, path: str) -> datetime:
    try:
        if isinstance(value, str):
            if _is_number(value):
                return datetime.fromtimestamp(float(value), UTC)
            time = datetime.fromisoformat(value.upper())  # RFC 3339 takes t and z as well
            if time.tzinfo is None:
                raise Invalid.at(path, "needs an offset, for example 2026-01-31T12:00:00Z")
            return time.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise Invalid.at(path, "is no time: write RFC 3339 text or seconds since 1970") from exc
    raise Invalid.at(path, "must be RFC 3339 text or seconds since 1970")


def _is_number(text: str) -> bool:
    """Return whether a text is seconds; eight digits may as well be a date, and are none of both here."""
    return _SECONDS.fullmatch(text) is not None and not (len(text) == 8 and text.isdecimal())
