"""kill -9 of the processes that run models beside the server, under load on a model there and on one in the server."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from inference_fakes import GOOD_ROW, Platform, eventually, make_bundle
from inference_process import InferenceProcess, answers_by_version, good_requests, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop
from runtime_makers import misbehaving, without_twin

APART = "apart"
RUNTIME = "modelyard_inference_runtime"
BOTH = [*good_requests(), *good_requests(model=APART)]
PATIENT = {"timeout_s": 100.0, "max_concurrent": 4096}
"""scikit-learn takes a second to start, and on a machine that is busy half a minute."""


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """A model that only scikit-learn runs, and so not in the server."""
    return without_twin(tmp_path_factory.mktemp("apart") / "bundle", model=APART)


def its_process(server: InferenceProcess) -> list[psutil.Process]:
    """Return the process of the version: the one below the supervisor."""
    supervisor = server.child(RUNTIME)
    return supervisor.children() if supervisor is not None else []


def all_of_them(server: InferenceProcess) -> list[psutil.Process]:
    """Return the supervisor and what it supervises."""
    supervisor = server.child(RUNTIME)
    return [supervisor, *supervisor.children()] if supervisor is not None else []


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("victims", [its_process, all_of_them], ids=["the version's process", "all"])
def test_kill_9_of_the_isolated_runtime_fails_no_request(
    platform: Platform,
    bundles: tuple[Packed, Packed],
    apart: Packed,
    tmp_path: Path,
    victims: Callable[[InferenceProcess], list[psutil.Process]],
) -> None:
    platform.registry.add(apart)
    platform.registry.route(APART, str(apart.digest))
    killed: set[int] = set()

    def is_back(server: InferenceProcess) -> bool:
        return not killed & {one.pid for one in all_of_them(server)} and bool(its_process(server))

    with processes(platform, bundles, tmp_path, **PATIENT) as (server,):
        server.wait_ready(APART)
        with open_loop(
            [server.url], [*good_requests(), *good_requests(model=APART)], rate=10.0, patience_s=120.0
        ) as load:
            for _ in range(2):
                load.wait_for(20, 120)
                found = eventually(lambda: victims(server), 30)
                killed |= {one.pid for one in found}
                for one in found:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGKILL)
                load.wait_for(20, 120)
                eventually(lambda: is_back(server), 120)

    assert load.failures == []
    answers = answers_by_version(load)
    assert answers.keys() == {str(bundles[0].digest), str(apart.digest)}
    assert all(len(labels) == 1 for labels in answers.values())


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_row_that_crashes_its_model_fails_no_other_request(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    wild = misbehaving(make_bundle(tmp_path / "made", seed=5, model=APART), tmp_path / "wild")
    platform.registry.add(wild)
    platform.registry.route(APART, str(wild.digest))
    crash = {"instances": [GOOD_ROW | {"load": 666}]}
    with processes(platform, bundles, tmp_path, runtime_pyfunc=True, **PATIENT) as (server,):
        server.wait_ready(APART)
        with open_loop(
            [server.url], [*good_requests(), *good_requests(model=APART)], rate=10.0, patience_s=120.0
        ) as load:
            load.wait_for(20, 120)
            url = f"{server.url}/v1/models/{APART}:predict"
            answer = httpx.post(url, json=crash, timeout=120, trust_env=False)
            load.wait_for(20, 120)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert load.failures == []
