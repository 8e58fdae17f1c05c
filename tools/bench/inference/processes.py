"""Servers as processes of their own, on a core of their own; what they take, with all that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = ["Cores", "Process", "Usage", "started"]

_END_S = 10.0
_SETTLED_S = 15.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core each gets, so that they take no time from each other; None leaves it to the system.

    Attributes:
        around: of what surrounds the servers (registry, drift): a third core where there is one, else the load's.
    """

    servers: int | None = None
    load: int | None = None
    around: int | None = None

    @classmethod
    def split(cls) -> Cores:
        """Return different cores for servers and load, where there are two to choose from."""
        if not hasattr(os, "sched_getaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
            return cls()
        return cls(cores[0], cores[1], cores[2] if len(cores) > 2 else cores[1])

    @property
    def sentence(self) -> str:
        """How they are split, for people."""
        if self.servers is None:
            return "NOT pinned: there are not two cores to choose from, so servers and load take time from each other"
        where = "beside the load" if self.around == self.load else f"on core {self.around}"
        return f"servers on core {self.servers}, load on core {self.load}, registry and drift {where}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory of a process tree, in MiB. PSS counts what processes share once; None where the system does not say."""

    rss_mib: float
    pss_mib: float | None
    processes: int


@dataclass(frozen=True, slots=True)
class Process:
    """A server that runs."""

    root: psutil.Process
    log: Path
    spawned: float = field(default_factory=time.monotonic)

    def tree(self) -> list[psutil.Process]:
        """Return it and all that it started."""
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """Return the CPU seconds that it took so far."""
        total = 0.0
        for process in self.tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def usage(self) -> Usage:
        """Return the memory that it holds."""
        rss, pss, count = 0, 0, 0
        for process in self.tree():
            try:
                memory = process.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            rss, pss, count = rss + memory.rss, pss + getattr(memory, "pss", 0), count + 1
        return Usage(rss / 2**20, pss / 2**20 if pss else None, count)

    def settle(self) -> None:
        """Wait until it has ended what callers that are gone left behind, so that the next server has the core."""
        until, quiet = time.monotonic() + _SETTLED_S, 0
        before = self.cpu_s()
        while quiet < 3 and time.monotonic() < until:
            time.sleep(_LOOK_S)
            now = self.cpu_s()
            quiet = quiet + 1 if now - before <= _LOOK_S / 5 else 0
            before = now

    def pause(self) -> None:
        """Stop it with all that it started, so that it takes no time from another."""
        tree, until = self.tree(), time.monotonic() + _END_S
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        # A signal is heard when its process is next given time.
        while any(map(_goes_on, tree)) and time.monotonic() < until:
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on: what it started before itself, or it would think that those had gone."""
        for process in reversed(self.tree()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Let it go on for a turn; what fell due meanwhile is done before."""
        self.resume()
        try:
            time.sleep(_LOOK_S)
            yield
        finally:
            self.pause()

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


@contextmanager
def started(argv: Sequence[str], env: Mapping[str, str], core: int | None, folder: Path) -> Iterator[Process]:
    """Start a command on a core, in a folder of its own; end it and all that it started."""
    folder.mkdir(parents=True, exist_ok=True)
    pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*pinned, *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **env},
            start_new_session=True,
        )
    running = Process(psutil.Process(process.pid), folder / "log")
    try:
        yield running
    finally:
        running.resume()
        _end(process, running.tree())


def _goes_on(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(process: subprocess.Popen[bytes], tree: Sequence[psutil.Process]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    # Some leave children behind; those are of the session that was made for them.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in tree:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
