"""Starts the inference service. Reads nothing but the environment."""

from __future__ import annotations

import sys

from modelyard_common.app import serve
from modelyard_common.process import begin

from modelyard_inference.settings import InferenceSettings
from modelyard_inference.wiring import build

__all__ = ["main"]

_SWITCH_S = 0.0005
"""How long a background thread may keep the event loop from its work; Python's own 5 ms would be most of a p99."""


def main() -> None:
    """Serve until SIGTERM."""
    sys.setswitchinterval(_SWITCH_S)
    settings = begin("inference", InferenceSettings)
    settings.home.mkdir(parents=True, exist_ok=True)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
