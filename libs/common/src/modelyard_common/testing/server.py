"""Serves an ASGI application on a real socket, for tests that need one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from modelyard_common.connections import ConnectionBounds
from modelyard_common.serving import protocol_of

__all__ = ["running"]


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve app in a thread on an ephemeral port of loopback; give its base URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    http = protocol_of(app, ConnectionBounds(60, 1000)) if hasattr(getattr(app, "state", None), "edge") else "auto"
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2, http=http
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the application did not start")
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
