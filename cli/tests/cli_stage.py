"""What the tests of the command share: the command run in this process, a whole platform, two services alone."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from modelyard_cli.embedded.layout import SERVICES, Layout
from modelyard_cli.embedded.platform import find_supervisor
from modelyard_cli.embedded.process import is_ready, living
from modelyard_cli.main import main
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import free_port_base, running
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build as build_registry
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build as build_training

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "modelyard_cli.main")
NOBODY = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and the exit code that it left with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Said:
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        return self


def modelyard(*words: object, stdin: str = "") -> Said:
    """Run the command in this process, from its arguments to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["modelyard", *map(str, words)]
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exc:
            code = exc.code or 0
    return Said(code, out.getvalue(), err.getvalue())


def wait_until(condition: Callable[[], Any], what: str, *, within_s: float = 60.0) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, f"not in time: {what}"
        time.sleep(0.05)


def lives(process: psutil.Process) -> bool:
    """Return whether a process runs; one that ended and was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class LivePlatform:
    """A platform on a folder of its own, under a supervisor in the background."""

    def __init__(self, home: Path) -> None:
        self.layout = Layout(home, free_port_base())
        self.options = ("--data-dir", str(home), "--port-base", str(self.layout.port_base))

    def __call__(self, *words: object, stdin: str = "") -> Said:
        return modelyard(*self.options, *words, stdin=stdin)

    def run(self, *words: str, timeout_s: float = 150.0) -> Said:
        """Run the command as a process of its own."""
        done = subprocess.run(
            [*COMMAND, *self.options, *words], capture_output=True, text=True, check=False, timeout=timeout_s
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def at_a_terminal(self, *words: str, timeout_s: float = 120.0) -> Said:
        """Run the command as a process whose standard error is a terminal."""
        ours, theirs = pty.openpty()
        shown = b""
        command = [*COMMAND, *self.options, *words]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}
        ) as run:
            os.close(theirs)
            ends = time.monotonic() + timeout_s
            while time.monotonic() < ends:
                ready, _, _ = select.select([ours], [], [], 1.0)
                try:
                    shown += (piece := os.read(ours, 65_536) if ready else b"")
                except OSError:  # the other end is closed: Linux says EIO
                    break
                if ready and not piece:
                    break
            out, _ = run.communicate(timeout=10)
        os.close(ours)
        return Said(run.returncode, out.decode(), shown.decode(errors="replace"))

    @property
    def names(self) -> list[str]:
        return sorted(path.stem for path in (self.layout.home / "run").glob("*.json"))

    @property
    def supervisor(self) -> int | None:
        return find_supervisor(self.layout)

    def process(self, name: str) -> psutil.Process:
        found = living(self.layout.record(name))
        assert found is not None, f"{name} does not run"
        return found

    def pids(self) -> dict[str, int]:
        return {name: self.process(name).pid for name in self.names}

    def living_pids(self) -> dict[str, int]:
        found = {name: living(self.layout.record(name)) for name in self.names}
        return {name: process.pid for name, process in found.items() if process is not None}

    def is_ready(self, name: str) -> bool:
        return is_ready(self.layout.url(name) + self.layout.probe(name))

    def kill(self, pid: int) -> None:
        """Kill a process as the kernel does when memory runs out."""
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not lives(process), f"{pid} ends")

    def ensure_up(self) -> None:
        if self.supervisor is None or not all(self.is_ready(name) for name in (*SERVICES, "mlflow")):
            if self.supervisor is not None:
                wait_until(lambda: all(self.is_ready(name) for name in (*SERVICES, "mlflow")), "the platform is ready")
                return
            self.run("up", "--detach").ok()

    def stop(self) -> None:
        self.run("down").ok()


@dataclass(frozen=True)
class Services:
    """Where two services are; all others are away."""

    registry: str
    training: str
    home: Path

    def __call__(self, *words: object, stdin: str = "") -> Said:
        urls = ("--registry-url", self.registry, "--training-url", self.training)
        away = ("--inference-url", NOBODY, "--drift-url", NOBODY, "--data-dir", self.home / "data")
        return modelyard(*urls, *away, *words, stdin=stdin)


@contextmanager
def small_services(home: Path) -> Iterator[Services]:
    registry = Database(f"sqlite:///{home / 'registry.db'}")
    upgrade(registry, "modelyard_registry")
    training = Database(f"sqlite:///{home / 'training.db'}")
    upgrade(training, "modelyard_training")
    around = {"mlflow_url": NOBODY, "drift_url": NOBODY, "inference_url": NOBODY, "drain_s": 0.0}
    with running(build_registry(RegistrySettings(data_dir=home / "registry", **around), registry)) as registry_url:
        settings = TrainingSettings(data_dir=home / "training", registry_url=registry_url, **around)
        with running(build_training(settings, training, background=False)) as training_url:
            yield Services(registry_url, training_url, home)
    for database in (registry, training):
        database.close()


MANIFEST = """\
apiVersion: modelyard.dev/v1alpha1
kind: ManagedModel
metadata: {{name: {name}}}
spec:
  task: regression
  data:
    source: {{uri: {data}}}
    target: y
  train:
    recipe: {{estimator: ridge}}
"""


def manifest(folder: Path, name: str = "small", data: str = "rows.csv") -> Path:
    """Write a small manifest, and the rows that it names."""
    (folder / "rows.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 7},{i * 2.5}\n" for i in range(60)))
    path = folder / "model.yaml"
    path.write_text(MANIFEST.format(name=name, data=data))
    return path
