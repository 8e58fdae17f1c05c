"""Writes ``docs/conformance.md``: ``python services/inference/tests/conformance``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from inference_fakes import make_bundle  # noqa: E402  # its folder is on the path only now
from matrix import CLIENTS, DOCUMENT, a_stage, calls_of, rendered  # noqa: E402

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with a_stage(folder, make_bundle(folder / "bundle", seed=1)) as stage:
            results = {name: calls_of(client, stage) for name, client in CLIENTS.items()}
    DOCUMENT.write_text(rendered(results))
    failed = [f"{name}: {call}: {why}" for name, calls in results.items() for call, why in calls.items() if why]
    print("\n".join(failed) or f"{DOCUMENT}: all pass")  # noqa: T201  # a command
    sys.exit(1 if failed else 0)
