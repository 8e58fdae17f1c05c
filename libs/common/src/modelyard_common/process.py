"""The first thing that a service's process does: from here on everything that it says is a line of ECS JSON.

That holds of what ends it too: wrong settings, and exceptions that nobody caught, in whatever thread.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any, TypeVar

from modelyard_common.identity import Identity
from modelyard_common.logs import configure_logging, get_logger
from modelyard_common.settings import ServiceSettings
from modelyard_common.tracing import configure_tracing

__all__ = ["begin", "log_last_words"]

_log = get_logger(__name__)
S = TypeVar("S", bound=ServiceSettings)


def begin(service: str, settings_of: type[S], **given: Any) -> S:
    """Return the settings of this process; it logs, and traces where it is told to, as they say.

    Args:
        service: its name.
        settings_of: what reads the environment.
        given: settings that the environment has no say in.
    """
    # Before they are read, so that what is wrong with them is a line like any other.
    configure_logging(Identity(service))
    log_last_words()
    settings = settings_of(**given)
    identity = Identity(service, settings.environment)
    configure_logging(identity, settings.log_level)
    configure_tracing(identity, endpoint=settings.otlp_endpoint, ratio=settings.trace_ratio)
    return settings


def log_last_words() -> None:
    """Log warnings, and exceptions that nobody catches."""
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.error("process.crashed", error=error)


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else ""
    _log.error("thread.crashed", error=args.exc_value, thread=name)
