"""Serves in this process: alone, or as one of several workers, which their supervisor begins with a place each."""

from __future__ import annotations

import gc
import sys
from typing import Any, cast

# FastAPI loads the API of pydantic 1, 1.5 MiB, to ask of each model whether it is made of it. Where there is none, none
# is: it knows that answer as well.
cast("dict[str, Any]", sys.modules).setdefault("pydantic.v1", None)

from modelyard_common.app import serve  # noqa: E402
from modelyard_common.process import begin  # noqa: E402

from modelyard_inference.adapters.workers.member import Member  # noqa: E402
from modelyard_inference.adapters.workers.post import Post  # noqa: E402
from modelyard_inference.settings import InferenceSettings  # noqa: E402
from modelyard_inference.wiring import build  # noqa: E402

__all__ = ["main", "serve_alone"]

_SWITCH_S = 0.0005
"""How long a background thread may keep the event loop from its work; Python's own 5 ms would be most of a p99."""

_COLLECT_AFTER = (10_000, 20, 20)
"""Objects before the young are looked at, and how often before the older are. Python's 700 are made in ten answers."""


def serve_alone(settings: InferenceSettings) -> None:
    """Serve until SIGTERM, as the only process."""
    app = build(settings)
    _calm()
    serve(app, settings)


def main() -> None:
    """Serve until SIGTERM, at the place that the argument says."""
    post = Post.read(sys.argv[1])
    given = begin("inference", InferenceSettings)
    settings = given.of_worker(port=post.port, grpc_port=post.grpc_port, of=post.of)
    app = build(settings, member=Member(post))
    _calm()
    serve(app, settings, shared_port=True)


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
