"""Logs are events with fields, written as one ECS JSON object a line (Elastic Common Schema 9).

``get_logger(__name__).info("run.started", run="r-1")``: the event's name goes to ``message`` and
``event.action``, fields to ``modelyard.*``; what ECS has a name for goes under that, by ``ecs``. Never pass what
people sent us: rows and bodies stay out of logs, also those that an exception quotes.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic import ValidationError

from modelyard_common import context
from modelyard_common.identity import Identity

__all__ = ["EcsFormatter", "Logger", "configure_logging", "get_logger"]

_ECS_VERSION = "9.4.0"


Ecs = Mapping[str, Any] | None
"""Fields by their ECS names, dotted."""


class EcsFormatter(logging.Formatter):
    """Turns a record into one line of ECS JSON."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._service: dict[str, Any] = {"service.name": identity.service, "service.node.name": identity.host}
        if identity.version is not None:
            self._service["service.version"] = identity.version
        if identity.environment:
            self._service["service.environment"] = identity.environment

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "ecs.version": _ECS_VERSION,
            **self._service,
            "log.logger": record.name,
            "process.pid": record.process,
        }
        fields: dict[str, Any] | None = getattr(record, "fields", None)
        if fields is not None:
            document["event.action"] = record.getMessage()
            document |= getattr(record, "ecs", None) or {}
            if fields:
                document["modelyard"] = fields
        if (request := context.request_id.get()) is not None:
            document["http.request.id"] = request
        if (parent := context.trace_in_hand()) is not None:
            _, trace, span, _ = parent.split("-")
            document |= {"trace.id": trace, "span.id": span}
        if record.exc_info and record.exc_info[0] is not None:
            document |= _error(record.exc_info[1])
        try:
            return json.dumps(document, default=str, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError):  # a NaN, a cycle, a key that is no text: a line is never lost for a field
            document["modelyard"] = {str(name): str(value) for name, value in (fields or {}).items()}
            return json.dumps(document, default=str, ensure_ascii=False)


class Logger:
    """Writes events."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def _log(
        self, level: int, event: str, fields: dict[str, Any], ecs: Ecs = None, error: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields, "ecs": ecs}, exc_info=error)

    @property
    def says_all(self) -> bool:
        """Whether debug events are written: where even their fields would cost too much to put together."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, *, ecs: Ecs = None, **fields: Any) -> None:
        """Write an event that only somebody who hunts a bug wants to see."""
        self._log(logging.DEBUG, event, fields, ecs)

    def info(self, event: str, *, ecs: Ecs = None, **fields: Any) -> None:
        """Write an event of normal life."""
        self._log(logging.INFO, event, fields, ecs)

    def warning(self, event: str, *, ecs: Ecs = None, **fields: Any) -> None:
        """Write an event that somebody should know of."""
        self._log(logging.WARNING, event, fields, ecs)

    def error(self, event: str, *, error: BaseException | None = None, ecs: Ecs = None, **fields: Any) -> None:
        """Write a failure, with the exception when there is one."""
        self._log(logging.ERROR, event, fields, ecs, error)


def _error(error: BaseException) -> dict[str, Any]:
    """Return an exception's fields. One of pydantic's quotes the values that it refused, so its message is our own."""
    quotes = [one for one in _chain(error) if isinstance(one, ValidationError)]
    message, stack = str(error), "".join(traceback.format_exception(error))
    for quoting in quotes:
        said = str(quoting)
        message, stack = (text.replace(said, _without_values(quoting)) for text in (message, stack))
    return {"error.type": type(error).__name__, "error.message": message, "error.stack_trace": stack}


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _without_values(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'all of it'}: {one['msg']}" for one in found)
    return f"{error.title}: {places}"


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)


def configure_logging(identity: Identity, level: str = "info", stream: TextIO | None = None) -> None:
    """Send every record of this process to stream (standard error) as ECS JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(EcsFormatter(identity))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for server in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(server)
        logger.handlers[:] = []
        logger.propagate = True
