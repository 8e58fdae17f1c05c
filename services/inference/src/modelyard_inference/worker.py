"""Serves in this process: alone, or as one of several workers, which their supervisor begins with a place each."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

from modelyard_common.process import begin
from modelyard_common.serving import serve

from modelyard_inference.adapters.workers.member import Member
from modelyard_inference.adapters.workers.post import Post
from modelyard_inference.settings import InferenceSettings
from modelyard_inference.wiring import build

__all__ = ["main", "serve_alone"]

_SWITCH_S = 0.0005
"""How long a background thread may keep the event loop from its work; Python's own 5 ms would be most of a p99."""

_COLLECT_AFTER = (10_000, 20, 20)
"""Objects before the young are looked at, and how often before the older are. Python's 700 are made in ten answers."""

_ARENA_MAX = -8
"""``M_ARENA_MAX`` of malloc.h."""


def serve_alone(settings: InferenceSettings) -> None:
    """Serve until SIGTERM, as the only process."""
    _one_heap()
    app = build(settings)
    _calm()
    serve(app, settings)


def main() -> None:
    """Serve until SIGTERM, at the place that the argument says."""
    _one_heap()
    post = Post.read(sys.argv[1])
    given = begin("inference", InferenceSettings)
    settings = given.of_worker(port=post.port, grpc_port=post.grpc_port, of=post.of)
    app = build(settings, member=Member(post))
    _calm()
    serve(app, settings, shared_port=True)


def _one_heap() -> None:
    """Have all threads take memory from one heap: what one of them has given back is there for the others.

    glibc gives each a heap of its own, so that none waits for another. Here that is seldom: what ONNX Runtime and numpy
    allocate, without the interpreter's lock, are few pieces at a time, and taken quickly.
    """
    with suppress(OSError, AttributeError):  # there is no such thing but in glibc
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def _calm() -> None:
    """Keep the interpreter's housekeeping short, since every request waits for it.

    What is there before the first request stays, so that the collector of cycles need not look at it ever again: a
    look at all of it takes as long as a hundred answers. And it looks at the rest less often.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


if __name__ == "__main__":
    main()
