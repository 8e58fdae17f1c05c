"""Starts the inference service. Reads nothing but the environment."""

from __future__ import annotations

from modelyard_common.app import serve
from modelyard_common.logs import configure_logging

from modelyard_inference.settings import InferenceSettings
from modelyard_inference.wiring import build

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    settings = InferenceSettings()
    configure_logging("inference", settings.log_level)
    settings.home.mkdir(parents=True, exist_ok=True)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
