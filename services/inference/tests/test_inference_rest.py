"""The framework is loaded with the first request that needs it, and with none before."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from inference_fakes import Platform, eventually
from inference_process import InferenceProcess
from modelyard_bundle.packaging import Packed
from test_inference_api import GOOD_V2

_LOADED = "app.loaded"


def test_what_serves_predictions_loads_no_framework() -> None:
    asks = "import sys, modelyard_inference.worker; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout.split()

    assert "modelyard_inference" in loaded
    assert {"fastapi", "starlette"}.isdisjoint(loaded)


@pytest.mark.parametrize("path", ["/docs", "/v2/models/power", "/v1/served", "/nothing"])
def test_a_process_loads_it_when_it_is_asked_for_what_it_answers(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path, path: str
) -> None:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    server = InferenceProcess(platform, tmp_path / "server")
    with closing(server):
        server.start()
        eventually(lambda: _predicts(server))
        for probe in ("/health/live", "/health/startup", "/health/ready", "/metrics"):
            assert server.get(probe).status_code == 200
        assert _LOADED not in server.log

        assert server.get(path).status_code == (404 if path == "/nothing" else 200)
        assert _LOADED in server.log
        assert _predicts(server)


def _predicts(server: InferenceProcess) -> bool:
    try:
        return httpx.post(f"{server.url}/v2/models/power/infer", json=GOOD_V2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
