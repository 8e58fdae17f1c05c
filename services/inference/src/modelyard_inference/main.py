"""Starts the inference service: one process, or a supervisor of several. Reads nothing but the environment."""

from __future__ import annotations

import sys

from modelyard_common.process import begin

from modelyard_inference.settings import InferenceSettings

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    settings = begin("inference", InferenceSettings)
    settings.home.mkdir(parents=True, exist_ok=True)
    # What serves and what supervises are of different weight: each imports only its own.
    if settings.process_count == 1:
        from modelyard_inference.worker import serve_alone  # noqa: PLC0415

        serve_alone(settings)
    else:
        from modelyard_inference.supervision import supervise  # noqa: PLC0415

        sys.exit(supervise(settings))


if __name__ == "__main__":
    main()
