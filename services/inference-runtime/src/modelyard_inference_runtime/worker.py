"""The process of one version: ``python -m …runtime.worker FOLDER DIGEST RUNTIME ADDRESS MEMORY MOST``.

It verifies every byte of the bundle itself before it loads any, says so on its standard output, and answers at its
socket until its standard input ends. Whatever else its model writes there goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modelyard_bundle.isolated import ASK, FAILED, INVALID, OK
from modelyard_bundle.loading import load
from modelyard_bundle.manifest import verify
from modelyard_bundle.runtimes.base import Runtime
from modelyard_common.errors import Invalid, ModelyardError
from modelyard_common.frames import packed
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_inference_runtime.keeper import OUT_OF_MEMORY
from modelyard_inference_runtime.operations import Model, answered
from modelyard_inference_runtime.server import Handler, SocketServer, listening

__all__ = ["main"]

_UNNEEDED = ("pandas", "pyarrow", "pytest")
"""What scikit-learn imports where it is installed, and a model of numbers does not use: a third of the time to start
and of the memory. Whoever makes a frame imports pandas then."""
_PARENT_DEATH = 1
"""``PR_SET_PDEATHSIG``: a model that holds the interpreter would not notice that its input ends."""


def main() -> None:
    """Do what the arguments say."""
    folder, digest, runtime, address, memory, most = sys.argv[1:]
    say = _own_output()
    _die_with_the_supervisor()
    _bound(int(memory))
    try:
        manifest = verify(Path(folder), digest)
        model = Model(manifest, _loaded(Path(folder), manifest, runtime))
    except ModelyardError as exc:
        say(packed(INVALID, exc.message.encode()[:2000]))
        return
    except ModuleNotFoundError as exc:
        say(packed(INVALID, f"{exc.name} is not installed beside the {runtime} runtime".encode()))
        return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as exc:  # whatever a damaged model raises
        say(packed(INVALID, f"the {runtime} runtime does not load it ({type(exc).__name__})".encode()))
        return
    server = SocketServer(
        listening(Path(address)), lambda: (_handler(model), lambda: None), _failed, most_bytes=int(most)
    )
    say(packed(OK, b""))
    server.serve()


def _loaded(folder: Path, manifest: BundleManifest, runtime: str) -> Runtime:
    if runtime not in manifest.runtimes:
        raise Invalid(f"the bundle names no {runtime} runtime")
    with _hidden(_UNNEEDED if runtime == "sklearn" else ()):
        return load(folder, manifest, prefer=runtime, code=True)


@contextlib.contextmanager
def _hidden(names: Iterable[str]) -> Iterator[None]:
    """Let nobody import these meanwhile, as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how the import system is told so
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _handler(model: Model) -> Handler:
    def handle(kind: int, body: bytes) -> bytes:
        if kind != ASK:
            raise Invalid(f"there is no call {kind} here")
        return answered(model, body)

    return handle


def _failed(error: Exception) -> tuple[int, bytes]:
    """Return what is told of what a model raised: its kind. Memory that a leak has taken comes back only by an end."""
    if isinstance(error, MemoryError):
        os._exit(OUT_OF_MEMORY)
    return FAILED, type(error).__name__.encode()


def _own_output() -> Callable[[bytes], None]:
    """Return what writes to the supervisor; from here on nobody else does."""
    mine = os.dup(1)
    os.dup2(2, 1)

    def say(words: bytes) -> None:
        os.write(mine, words)

    return say


def _die_with_the_supervisor() -> None:
    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os._exit(0)

    threading.Thread(target=watch, name="input", daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)


def _bound(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        # Data and not addresses: numeric libraries reserve gigabytes of those and touch a few pages.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):  # when memory runs out in the container, a model ends and not its supervisor
        Path("/proc/self/oom_score_adj").write_text("900")


if __name__ == "__main__":
    main()
