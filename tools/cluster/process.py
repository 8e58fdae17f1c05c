"""Processes of the node: started in its network, watched while they start, ended together."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tools.cluster import network
from tools.cluster.errors import ComponentFailed
from tools.cluster.layout import Layout

__all__ = ["Components", "until"]

POLL_S = 0.1
# An API server may linger over open watches; nothing of this cluster is worth waiting for.
STOP_TIMEOUT_S = 2.0


def until(done: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll until a condition holds; return whether it did before the deadline (seconds, monotonic)."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


@dataclass
class Components:
    """The running programs of one node, in the order in which they were started."""

    layout: Layout
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[object], *, inside: bool = True) -> None:
        """Start a program with its log in the cluster's folder; inside the cluster's network unless told otherwise."""
        entry = network.enter(self.layout.name) if inside else []
        with self.layout.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*entry, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.layout.root,
                env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
                start_new_session=True,
            )

    def await_ready(self, name: str, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until a program is of use.

        Raises:
            ComponentFailed: it ended, or was not ready in time.
        """
        came_up = until(lambda: ready() or self.running[name].poll() is not None, timeout_s=timeout_s)
        if self.running[name].poll() is not None:
            raise ComponentFailed(f"{name} ended with {self.running[name].returncode}:\n{self.tail(name)}")
        if not came_up:
            raise ComponentFailed(f"{name} was not ready within {timeout_s:.0f} s:\n{self.tail(name)}")

    def dead(self) -> list[str]:
        """Return the programs that have ended by themselves."""
        return [name for name, process in self.running.items() if process.poll() is not None]

    def tail(self, name: str) -> str:
        """Return the end of a program's log."""
        return self.layout.log(name).read_text(errors="replace")[-4000:]

    def stop(self, name: str) -> None:
        """End one program."""
        process = self.running.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
