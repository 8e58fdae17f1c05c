"""Servers as processes of their own, on cores of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil

__all__ = ["Cores", "Server", "free_port", "running", "uvicorn_argv"]

_START_S = 60.0
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server to measure.

    Attributes:
        argv: its command.
        path: where the body is posted.
        ready: the path that answers 200 once it can be asked.
    """

    name: str
    argv: Sequence[str]
    port: int
    path: str
    ready: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the body is posted."""
        return f"http://127.0.0.1:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores servers and load get: they must not take time from each other."""

    servers: frozenset[int]
    load: frozenset[int]

    @classmethod
    def split(cls) -> Cores | None:
        """Return one core for servers and another for the load; None where there are not two to choose from."""
        if not hasattr(os, "sched_getaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
            return None
        return cls(frozenset(cores[:1]), frozenset(cores[1:2]))


def free_port() -> int:
    """Return a port of loopback that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def uvicorn_argv(app: str, port: int) -> list[str]:
    """Return the command that serves an application of this package as plainly as uvicorn can."""
    where = ["--app-dir", str(Path(__file__).parents[1]), "--host", "127.0.0.1", "--port", str(port)]
    quiet = ["--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "1"]
    return [sys.executable, "-m", "uvicorn", f"bench.apps:{app}", *where, *quiet]


@contextmanager
def running(servers: Sequence[Server], cores: Cores | None, logs: Path) -> Iterator[dict[str, Callable[[], float]]]:
    """Start servers, wait until each is ready, and end them; give what reads the CPU seconds of each, by its name."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(server, cores, logs)) for server in servers]
        for server, process in zip(servers, processes, strict=True):
            _wait(server, process, logs)
        yield {
            server.name: partial(_cpu_s, psutil.Process(process.pid))
            for server, process in zip(servers, processes, strict=True)
        }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _process(server: Server, cores: Cores | None, logs: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (logs / f"{server.name}.log").open("wb") as log:
        process = subprocess.Popen(server.argv, stdout=log, stderr=log, env={**os.environ, **server.env})
    if cores is not None:
        os.sched_setaffinity(process.pid, cores.servers)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], logs: Path) -> None:
    deadline = time.monotonic() + _START_S
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=2) as http:
        while True:
            try:
                if http.get(server.ready).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                log = (logs / f"{server.name}.log").read_text(errors="replace")
                raise RuntimeError(f"{server.name} did not start:\n{log[-2000:]}")
            time.sleep(0.05)
