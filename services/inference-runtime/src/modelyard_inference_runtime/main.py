"""Starts the runtime: ``python -m modelyard_inference_runtime.main [--attached]``. Reads nothing but the environment.

``--attached``: end when standard input does, for the server that started it. Without, it is a container's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from modelyard_bundle.isolated import FAILED, Load
from modelyard_common.identity import Identity
from modelyard_common.logs import configure_logging, get_logger
from modelyard_common.process import log_last_words

from modelyard_inference_runtime.server import SocketServer, control_handler, listening
from modelyard_inference_runtime.settings import RuntimeSettings, worker_environment
from modelyard_inference_runtime.supervisor import Limits, Supervisor

__all__ = ["main"]

_log = get_logger(__name__)
_MOST_CONTROL_BYTES = 64 * 1024
_MOST_BYTES = 256 * 1024**2
"""Of one request: more than any that the server takes becomes here."""


def main() -> None:
    """Serve until SIGTERM."""
    configure_logging(Identity("inference-runtime"))
    log_last_words()
    settings = RuntimeSettings()
    configure_logging(Identity("inference-runtime", settings.environment), settings.log_level)
    settings.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    supervisor = Supervisor(
        settings.socket.parent,
        lambda load, address: _start(settings, load, address),
        Limits(
            pyfunc=settings.pyfunc,
            most_versions=settings.most_versions,
            start_timeout_s=settings.start_timeout_s,
            crash_limit=settings.crash_limit,
            crash_window_s=settings.crash_window_s,
        ),
        monotonic=time.monotonic,
    )
    server = SocketServer(
        listening(settings.socket), lambda: control_handler(supervisor), _broken, most_bytes=_MOST_CONTROL_BYTES
    )
    signal.signal(signal.SIGTERM, lambda number, frame: _end(server))
    signal.signal(signal.SIGINT, signal.SIG_IGN if "--attached" in sys.argv else lambda number, frame: _end(server))
    if "--attached" in sys.argv:
        threading.Thread(target=_end_with_input, args=[server], name="input", daemon=True).start()
    _log.info("runtime.listening", socket=str(settings.socket), pyfunc=settings.pyfunc)
    server.serve()
    settings.socket.unlink(missing_ok=True)
    supervisor.close()


def _start(settings: RuntimeSettings, load: Load, address: Path) -> subprocess.Popen[bytes]:
    folder = settings.socket.parent / load.folder
    words = (str(folder), load.digest, load.runtime, str(address), str(settings.memory_bytes), str(_MOST_BYTES))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "modelyard_inference_runtime.worker", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        env=worker_environment(settings.threads),
    )


def _broken(error: Exception) -> tuple[int, bytes]:
    _log.error("call.broken", error=error)
    return FAILED, type(error).__name__.encode()


def _end(server: SocketServer) -> None:
    threading.Thread(target=server.close, name="end", daemon=True).start()


def _end_with_input(server: SocketServer) -> None:
    while os.read(0, 1):
        pass
    _end(server)


if __name__ == "__main__":
    main()
