"""The load: h2load, which asks over HTTP/1.1 and over gRPC's HTTP/2, in a closed loop on keep-alive connections.

Each connection sends its next request when its answer has come. So latencies are those of callers that wait: they
say nothing of a server above its capacity. A request that fails is counted, never left out.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.inference.asks import Ask, Message, framed

__all__ = ["Load", "LoadMissing", "find_h2load", "measure"]

_ENDING_S = 30.0


class LoadMissing(RuntimeError):
    """h2load is not installed: the package nghttp2-client (Debian, Ubuntu), nghttp2 (Homebrew, Fedora)."""

    def __init__(self) -> None:
        super().__init__((self.__doc__ or "").strip())


@dataclass(frozen=True, slots=True)
class Load:
    """What callers saw in one round.

    Attributes:
        requests: how many were answered with success.
        failed: how many were not.
        load_cpu_s: CPU seconds of the load itself: near ``seconds`` it would be what is measured.
    """

    seconds: float
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    load_cpu_s: float


def find_h2load() -> str:
    """Return the program. Raise LoadMissing."""
    found = shutil.which("h2load")
    if found is None:
        raise LoadMissing
    return found


def measure(
    ask: Ask, port: int, message: Message, *, connections: int, seconds: float, answer_bytes: int, core: int | None
) -> Load:
    """Ask for a while, always the same.

    Args:
        answer_bytes: of a right answer's body; over gRPC an error has status 200 and no body, and is told by that.
        core: where the load runs; None leaves it to the system.

    Raises:
        RuntimeError: nothing was answered.
    """
    with tempfile.TemporaryDirectory(prefix="modelyard-load-") as name:
        body, log = Path(name) / "body", Path(name) / "log"
        body.write_bytes(framed(message.body) if ask.grpc else message.body)
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        options = [f"--clients={connections}", f"--duration={int(seconds * 1000)}ms", f"--log-file={log}"]
        kind = ["--max-concurrent-streams=1"] if ask.grpc else ["--h1"]
        heads = [f"--header={key}: {value}" for key, value in message.headers.items()]
        url = f"http://127.0.0.1:{port}{ask.path}"
        command = [*pinned, find_h2load(), "--threads=1", *options, *kind, f"--data={body}", *heads, url]
        before = _children_s()
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds + _ENDING_S,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C lets the turn end
        )
        spent_s = _children_s() - before
        lines = np.loadtxt(log, dtype=np.int64, ndmin=2) if log.exists() and log.stat().st_size else np.zeros((0, 3))
    if done.returncode != 0:
        raise RuntimeError(f"h2load failed: {(done.stderr or done.stdout)[-500:]}")
    if not len(lines):
        raise RuntimeError(f"nothing was answered within {seconds:g} s")
    right = lines[lines[:, 1] == 200]
    failed = max(len(lines) - len(right), _counted(r"(\d+) failed", done.stdout))
    if ask.grpc:
        failed += _without_body(done.stdout, len(right), answer_bytes)
    if not len(right):
        raise RuntimeError(f"all {failed} requests failed")
    p50, p99 = np.percentile(right[:, 2] / 1e3, [50, 99])
    return Load(seconds, len(right), failed, float(p50), float(p99), spent_s)


def _without_body(report: str, requests: int, answer_bytes: int) -> int:
    """Return how many answers had no body, as far as the bytes of all say."""
    whole = _counted(r"\((\d+)\) data", report) / (answer_bytes + len(framed(b"")))
    # Ids may differ in length by some bytes; a failure in two hundred is seen.
    return 0 if whole >= requests * 0.995 else round(requests - whole)


def _counted(pattern: str, report: str) -> int:
    found = re.search(pattern, report)
    return int(found.group(1)) if found else 0


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
