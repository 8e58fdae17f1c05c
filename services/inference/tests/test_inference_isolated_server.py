"""A server whose models run beside it: one that crashes or hangs fails its own requests in order, and no others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from inference_fakes import GOOD_ROW, Platform, a_platform, a_server, eventually, make_bundle
from modelyard_bundle.packaging import Packed
from runtime_makers import changed, misbehaving

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    root = tmp_path_factory.mktemp("wild")
    return misbehaving(make_bundle(root / "whole", seed=1, model="wild"), root / "bundle")


@pytest.fixture(scope="module")
def platform_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with a_platform(tmp_path_factory.mktemp("platform") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def http(platform_of_module: Platform, bundles: tuple[Packed, Packed], wild: Packed) -> Iterator[httpx.Client]:
    """A server with ``power``, an ONNX model, and ``wild``, which runs beside it; calls may take two seconds."""
    platform_of_module.registry.add(bundles[0], wild)
    platform_of_module.registry.route("wild", str(wild.digest))
    options: dict[str, Any] = {"runtime_pyfunc": True, "timeout_s": 2.0}
    with a_server(platform_of_module, (bundles[0],), **options) as client:
        eventually(lambda: client.get("/v2/models/wild/ready").status_code == 200, 60)
        yield client


def asked(http: httpx.Client, model: str, load: float = 0.5, **headers: str) -> httpx.Response:
    body = {"dataframe_records": [GOOD_ROW | {"load": load}]}
    return http.post(f"/models/{model}/invocations", json=body, headers=headers, timeout=30)


def comes_back(http: httpx.Client) -> None:
    eventually(lambda: asked(http, "wild").status_code == 200, 60)


def test_its_answers_carry_ids_and_its_errors_no_data(http: httpx.Client, wild: Packed) -> None:
    good, failed = asked(http, "wild"), asked(http, "wild", 888)

    assert good.json() == {"predictions": [1]}
    assert good.headers["modelyard-version"] == str(wild.digest)
    assert failed.status_code == 500
    assert "888" not in failed.text


def test_a_crash_is_a_503_with_a_time_to_come_back_and_the_health_page_says_why(http: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as beside:
        # It waits for the next process; the page says why meanwhile, and perhaps not for much longer.
        crash = beside.submit(asked, http, "wild", 666)
        said = eventually(lambda: _problem(http))
        crashed = crash.result()
    other = asked(http, "power")
    comes_back(http)

    assert (crashed.status_code, crashed.headers["retry-after"]) == (503, "1")
    assert "of SIGSEGV" in said or "started again" in said
    assert other.status_code == 200
    eventually(lambda: not _problem(http))


def _problem(http: httpx.Client) -> str:
    (model,) = [model for model in http.get("/v1/served").json()["models"] if model["name"] == "wild"]
    return str(model["versions"][0]["problem"])


def test_a_hang_is_a_504_at_the_deadline_and_the_next_requests_are_answered(http: httpx.Client) -> None:
    began = time.monotonic()
    hung = asked(http, "wild", 777)
    took_s = time.monotonic() - began
    other = asked(http, "power")
    comes_back(http)

    assert hung.status_code == 504
    assert took_s < 10
    assert other.status_code == 200


def test_kill_9_under_load_fails_no_request_of_another_model_and_hangs_none(http: httpx.Client) -> None:
    comes_back(http)
    seen: list[tuple[str, int, float, str]] = []
    stop = threading.Event()
    url = str(http.base_url)

    def ask(who: str) -> None:
        # Who is impatient gives up long before a process can be there again; the others wait for it.
        model, headers = ("wild", {"modelyard-timeout-ms": "300"}) if who == "impatient" else (who, {})
        with httpx.Client(base_url=url, trust_env=False) as mine:
            while not stop.is_set():
                began = time.monotonic()
                answer = asked(mine, model, **headers)
                took_s, wait = time.monotonic() - began, answer.headers.get("retry-after", "")
                seen.append((who, answer.status_code, took_s, wait))
                stop.wait(0.005)

    threads = [threading.Thread(target=ask, args=[who]) for who in ("power", "wild", "power", "wild", "impatient")]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(seen) > 60)
        mine = psutil.Process().children()
        alive = [one for one in mine if one.status() != psutil.STATUS_ZOMBIE]
        (supervisor,) = [one for one in alive if "modelyard_inference_runtime.main" in one.cmdline()]
        for process in [*supervisor.children(), supervisor]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        eventually(lambda: any(status == 503 for _, status, _, _ in list(seen)))
        comes_back(http)
        before = len(seen)
        eventually(lambda: len(seen) > before + 40)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)

    assert {status for who, status, _, _ in seen if who == "power"} == {200}
    assert {status for who, status, _, _ in seen if who == "wild"} <= {200, 503, 504}
    assert {status for who, status, _, _ in seen if who == "impatient"} <= {200, 503, 504}
    assert {wait for _, status, _, wait in seen if status == 503} == {"1"}
    assert max(took_s for _, _, took_s, _ in seen) < 10


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_version_that_crashes_on_its_probe_set_never_serves_and_the_registry_is_told(
    platform: Platform, bundles: tuple[Packed, Packed], wild: Packed, tmp_path: Path
) -> None:
    def crash(folder: Path) -> None:
        code = folder / "code" / "misbehaving_model.py"
        code.write_text(code.read_text().replace("load == 666", "load < 9"))

    bad = changed(wild, tmp_path / "bad", crash, model="power")
    with a_server(platform, (bundles[0],), runtime_pyfunc=True) as client:
        platform.registry.add(bad)
        platform.registry.route("power", str(bundles[0].digest), str(bad.digest), weight=50)
        eventually(lambda: platform.registry.outcomes(bad.digest), 240)
        answers = {asked(client, "power").status_code for _ in range(20)}

    assert platform.registry.outcomes(bad.digest) == ["refused"]
    (report,) = [report for report in platform.registry.reports if report.digest == str(bad.digest)]
    assert "SIGSEGV" in report.reason
    assert answers == {200}
