"""Processes that are started as a chart's pod would be."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx


def wait_until_ok(url: str, process: subprocess.Popen[bytes], log: Path, *, timeout_s: float = 60.0) -> None:
    """Wait until a process answers 200; fail with the end of its log when it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
