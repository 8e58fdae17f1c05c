"""Logs are events with fields, written as one ECS JSON object a line (Elastic Common Schema 8).

``get_logger(__name__).info("run.started", run="r-1")``: the event's name goes to ``message`` and
``event.action``, fields to ``modelyard.*``. Never pass what people sent us: rows and bodies stay out of logs.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from modelyard_common import context

__all__ = ["EcsFormatter", "Logger", "configure_logging", "get_logger"]

_ECS_VERSION = "8.11.0"


class EcsFormatter(logging.Formatter):
    """Turns a record into one line of ECS JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "ecs.version": _ECS_VERSION,
            "service.name": self._service,
            "log.logger": record.name,
            "process.pid": record.process,
        }
        fields: dict[str, Any] | None = getattr(record, "fields", None)
        if fields is not None:
            document["event.action"] = record.getMessage()
            if fields:
                document["modelyard"] = fields
        if (request := context.request_id.get()) is not None:
            document["http.request.id"] = request
        if (parent := context.traceparent.get()) is not None:
            _, trace, span, _ = parent.split("-")
            document |= {"trace.id": trace, "span.id": span}
        if record.exc_info and record.exc_info[0] is not None:
            kind, value, trace_back = record.exc_info
            document |= {
                "error.type": kind.__name__,
                "error.message": str(value),
                "error.stack_trace": "".join(traceback.format_exception(kind, value, trace_back)),
            }
        try:
            return json.dumps(document, default=str, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError):  # a NaN, a cycle, a key that is no text: a line is never lost for a field
            document["modelyard"] = {str(name): str(value) for name, value in (fields or {}).items()}
            return json.dumps(document, default=str, ensure_ascii=False)


class Logger:
    """Writes events."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def _log(self, level: int, event: str, fields: dict[str, Any], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=error)

    def debug(self, event: str, **fields: Any) -> None:
        """Write an event that only somebody who hunts a bug wants to see."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write an event of normal life."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write an event that somebody should know of."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """Write a failure, with the exception when there is one."""
        self._log(logging.ERROR, event, fields, error)


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)


def configure_logging(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send every record of this process to stream (standard error) as ECS JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(EcsFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for server in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(server)
        logger.handlers[:] = []
        logger.propagate = True
