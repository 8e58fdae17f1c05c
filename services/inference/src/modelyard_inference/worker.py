"""Serves in this process: alone, or as one of several workers, which their supervisor begins with a place each."""

from __future__ import annotations

import sys

from modelyard_common.app import serve
from modelyard_common.process import begin

from modelyard_inference.adapters.workers.member import Member
from modelyard_inference.adapters.workers.post import Post
from modelyard_inference.settings import InferenceSettings
from modelyard_inference.wiring import build

__all__ = ["main", "serve_alone"]

_SWITCH_S = 0.0005
"""How long a background thread may keep the event loop from its work; Python's own 5 ms would be most of a p99."""


def serve_alone(settings: InferenceSettings) -> None:
    """Serve until SIGTERM, as the only process."""
    sys.setswitchinterval(_SWITCH_S)
    serve(build(settings), settings)


def main() -> None:
    """Serve until SIGTERM, at the place that the argument says."""
    post = Post.read(sys.argv[1])
    sys.setswitchinterval(_SWITCH_S)
    given = begin("inference", InferenceSettings)
    settings = given.model_copy(
        update={
            "port": post.port,
            "grpc_port": post.grpc_port,
            "spool_max_bytes": given.spool_max_bytes // post.of,
            "memory_budget_bytes": given.memory_budget_bytes // post.of,
        }
    )
    serve(build(settings, member=Member(post)), settings, shared_port=True)


if __name__ == "__main__":
    main()
