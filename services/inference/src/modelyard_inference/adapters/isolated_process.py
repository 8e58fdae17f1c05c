"""The process beside that runs models: started when the first one is needed, started again when it is gone.

On a cluster there is a container for it, which the kubelet starts; then there is only an address.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from modelyard_bundle.isolated import Peer
from modelyard_bundle.manifest import verify
from modelyard_common.errors import Invalid, Unavailable
from modelyard_contracts.refs import Digest

from modelyard_inference.adapters.bundles import hold
from modelyard_inference.adapters.runtimes import not_here

__all__ = ["RuntimeHost", "SideContainer", "SpawnedProcess"]

_MODULE = "modelyard_inference_runtime"
_PREFIX = "MODELYARD_INFERENCE_RUNTIME_"
_START_S = 30.0
_POLL_S = 0.02
_SHORT_LIFE_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
"""Between two starts of a process that ends at once; each pause is twice the last."""


class RuntimeHost(Protocol):
    """Where the supervisor of the models' processes is."""

    def connect(self) -> Peer:
        """Return a connection to it.

        Raises:
            Invalid: this server has none.
            Unavailable: it does not answer now.
        """

    def offer(self, folder: Path, digest: str) -> Path:
        """Return the folder of a bundle as the supervisor sees it, or from its socket's folder."""

    def withdraw(self, digest: str) -> None:
        """Say that it needs that folder no more."""

    def address(self, name: str) -> Path:
        """Return where a version's socket is, by its name."""

    def close(self) -> None:
        """End what was started here."""


class SideContainer:
    """A container of the same pod, which shares a folder with this one: the socket, and the bundles that it is to load.

    It sees those and nothing else of this server's: neither the spool nor other models.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._bundles = socket.parent / "bundles"

    def connect(self) -> Peer:
        """Return a connection."""
        try:
            return Peer(self._socket)
        except OSError as exc:
            raise Unavailable(f"the inference runtime does not listen at {self._socket}", retry_after_s=1) from exc

    def offer(self, folder: Path, digest: str) -> Path:
        """Copy the bundle into the shared folder; it appears there whole. Another server may have done so before."""
        target = self._shown(digest)
        shown = target.relative_to(self._socket.parent)
        if _is_whole(target, digest):
            return shown
        try:
            self._bundles.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._bundles))
            try:
                shutil.copytree(folder, part / target.name)
                shutil.rmtree(target, ignore_errors=True)
                (part / target.name).rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        except OSError as exc:
            why = exc.strerror or type(exc).__name__
            raise Unavailable(f"the folder shared with the inference runtime cannot be written ({why})") from exc
        return shown

    def withdraw(self, digest: str) -> None:
        """Remove the copy."""
        shutil.rmtree(self._shown(digest), ignore_errors=True)

    def address(self, name: str) -> Path:
        """Return where a version's socket is."""
        return self._socket.parent / Path(name).name

    def close(self) -> None:
        """Nothing: the kubelet ends it."""

    def _shown(self, digest: str) -> Path:
        return self._bundles / Digest.parse(digest).hex


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        verify(folder, digest)
    except Invalid:
        return False
    return True


class SpawnedProcess:
    """A process of our own, in a folder of its own.

    Args:
        options: settings of the runtime, by name.
        environment: what else its environment holds.
    """

    def __init__(self, options: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self._options = options
        self._environment = dict(environment)
        self._began = self._not_before = 0.0
        self._short_lives = 0
        self._closed = False
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._held: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The supervisor's process, if there is one."""
        return None if self._process is None else self._process.pid

    def connect(self) -> Peer:
        """Return a connection; start the process when there is none."""
        if importlib.util.find_spec(_MODULE) is None:
            raise not_here("isolated", f"{_MODULE} is not installed")
        with self._lock:  # a hang is reported beside whatever else is going on, and so is the end
            if self._closed:
                raise Unavailable("the inference runtime ends with this server", retry_after_s=1)
            if self._process is None or self._process.poll() is not None:
                self._start()
            address = self._address
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return Peer(address)
            except OSError as exc:
                process = self._process
                ended = process is None or process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise Unavailable("the inference runtime did not start", retry_after_s=1) from exc
            time.sleep(_POLL_S)

    def offer(self, folder: Path, digest: str) -> Path:
        """Return the folder itself, which the cache keeps from now on: after a crash it is read again."""
        self.withdraw(digest)
        with contextlib.suppress(OSError):  # where it cannot be held, it is there as long as the cache has room
            self._held[digest] = hold(folder)
        return folder.absolute()

    def withdraw(self, digest: str) -> None:
        """Leave it to the cache."""
        held = self._held.pop(digest, None)
        if held is not None:
            os.close(held)

    def address(self, name: str) -> Path:
        """Return where a version's socket is."""
        return self._address.parent / Path(name).name

    def close(self) -> None:
        """End the process, for good: it does when its input ends. Whoever waits for it to start hears so."""
        with self._lock:
            self._closed = True
            self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        for digest in list(self._held):
            self.withdraw(digest)

    @property
    def _address(self) -> Path:
        if self._folder is None:
            # Short: the path of a socket has at most 107 bytes.
            self._folder = Path(tempfile.mkdtemp(prefix="modelyard-runtime-"))
        return self._folder / "runtime.sock"

    def _start(self) -> None:
        if self._process is not None:
            self._short_lives = self._short_lives + 1 if time.monotonic() - self._began < _SHORT_LIFE_S else 0
            self._not_before = self._began + min(_FIRST_PAUSE_S * 2.0**self._short_lives, _LONGEST_PAUSE_S)
            self._end()
        if (left_s := self._not_before - time.monotonic()) > 0:
            raise Unavailable(
                f"the inference runtime has ended, and is started again in {left_s:.1f} s", retry_after_s=1
            )
        self._began = time.monotonic()
        settings = {f"{_PREFIX}{name.upper()}": value for name, value in self._options.items()}
        environment = self._environment | settings | {f"{_PREFIX}SOCKET": str(self._address)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{_MODULE}.main", "--attached"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as exc:
            raise Unavailable("no process can be started for the inference runtime", retry_after_s=1) from exc

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
