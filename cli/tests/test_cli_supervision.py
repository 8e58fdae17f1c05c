"""The supervisor with the whole platform: killed and found again, never twice, on loopback only, stopped as a whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from cli_stage import COMMAND, LivePlatform, lives, manifest, modelyard, wait_until
from modelyard_cli.embedded.layout import SERVICES, Layout
from modelyard_cli.embedded.platform import find_supervisor
from modelyard_cli.embedded.process import living
from modelyard_common.testing import free_port_base

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


def family(platform: LivePlatform) -> list[psutil.Process]:
    """Return every process of the platform, workers and jobs too."""
    heads = [psutil.Process(pid) for pid in platform.pids().values()]
    return heads + [child for head in heads for child in head.children(recursive=True)]


def processes_of(layout: Layout) -> list[psutil.Process]:
    return [process for path in (layout.home / "run").glob("*.json") if (process := living(path)) is not None]


def test_status_tells_who_is_ready_in_words_and_for_programs(platform: LivePlatform) -> None:
    said = platform("status").ok()
    states = {state["name"]: state for state in platform("status", "-o", "json").ok().json}

    assert {*SERVICES, "mlflow"} <= states.keys()
    assert all(state["ready"] for state in states.values())
    assert states["inference"]["url"] == f"http://127.0.0.1:{platform.layout.port_base}"
    assert "nobody supervises" not in said.err


def test_every_process_listens_on_loopback_only(platform: LivePlatform) -> None:
    listening = {
        # gRPC's sockets are of version 6 and take IPv4 addresses as mapped ones.
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in family(platform)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert {address for address, _ in listening} == {"127.0.0.1"}
    assert {port for _, port in listening} == {
        platform.layout.port(name) for name in (*platform.names, "inference-grpc")
    }


def test_every_process_writes_to_a_file_of_its_own(platform: LivePlatform) -> None:
    for name in platform.names:
        assert platform.layout.log(name).stat().st_size > 0, name
    lines = platform.layout.log("registry").read_text().splitlines()
    assert any(json.loads(line)["message"] == "service.started" for line in lines if line.startswith("{"))


def test_prometheus_scrapes_every_service(platform: LivePlatform) -> None:
    if "prometheus" not in platform.names:
        pytest.skip("there is no prometheus on the PATH")

    def targets() -> dict[str, str]:
        with urlopen(f"{platform.layout.url('prometheus')}/api/v1/targets", timeout=10) as answer:
            active = json.load(answer)["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in active}

    jobs = [f"modelyard-{service}" for service in SERVICES]
    wait_until(lambda: targets() == dict.fromkeys(jobs, "up"), "all targets are up")


@pytest.mark.parametrize("detached", [("--detach",), ()], ids=["detached", "foreground"])
def test_second_up_on_the_folder_is_refused_and_names_the_process(
    platform: LivePlatform, detached: tuple[str, ...]
) -> None:
    said = platform.run("up", *detached)

    assert said.code == 4
    assert f"already runs on {platform.layout.home} (process {platform.supervisor})" in said.err
    assert "modelyard down" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("detached", [("--detach",), ()], ids=["detached", "foreground"])
def test_taken_port_is_named_with_its_owner_and_the_way_out(
    platform: LivePlatform, tmp_path: Path, detached: tuple[str, ...]
) -> None:
    other = ("--data-dir", str(tmp_path), "--port-base", str(platform.layout.port_base))
    done = subprocess.run([*COMMAND, *other, "up", *detached], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 4
    assert f"port {platform.layout.port('registry')} (registry) is taken by" in done.stderr
    assert f"(process {platform.process('registry').pid})" in done.stderr
    assert "--port-base" in done.stderr
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("name", [*SERVICES, "mlflow"])
def test_killed_process_is_started_again_and_no_other(platform: LivePlatform, name: str) -> None:
    before = platform.pids()

    platform.kill(before[name])

    wait_until(lambda: platform.living_pids().get(name, before[name]) != before[name], f"{name} starts again")
    wait_until(lambda: platform.is_ready(name), f"{name} is ready")
    after = platform.pids()
    assert {other for other in before if before[other] != after[other]} == {name}
    assert f"{name} had ended and was started again" in platform.layout.log("supervisor").read_text()


def test_after_a_kill_of_the_supervisor_up_adopts_what_lives_and_starts_what_does_not(platform: LivePlatform) -> None:
    before, killed = platform.pids(), platform.supervisor
    assert killed is not None
    platform.kill(killed)
    platform.kill(before["drift"])

    orphaned = platform("status")
    assert orphaned.code == 5
    assert "nobody supervises these processes" in orphaned.err
    assert "does not answer" in orphaned.out
    platform.run("up", "--detach").ok()

    after = platform.pids()
    assert {name for name in before if before[name] != after[name]} == {"drift"}
    assert platform.supervisor not in (None, killed)
    assert f"found {len(before) - 1} processes" in platform.layout.log("supervisor").read_text()
    platform("status").ok()


def test_down_stops_everything_and_training_jobs_too(platform: LivePlatform, tmp_path: Path) -> None:
    path = manifest(tmp_path, "endless")
    slow = "hist_gradient_boosting, params: {max_iter: 100000, max_leaf_nodes: 2}"
    path.write_text(path.read_text().replace("ridge", slow))
    platform("apply", "-f", path).ok()
    wait_until(
        lambda: any(run["stage"] == "fit" for run in platform("get", "runs", "endless", "-o", "json").json), "it fits"
    )
    jobs = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(platform.layout.home / "training" / "runs") in word for word in process.info["cmdline"] or [])
    ]
    processes = [*family(platform), *jobs]
    assert jobs and platform.supervisor is not None
    supervisor = psutil.Process(platform.supervisor)

    said = platform.run("down").ok()

    assert "stopped" in said.err
    assert [process for process in processes if lives(process)] == []
    wait_until(lambda: not lives(supervisor), "the supervisor ends")
    assert platform("status").code == 5
    assert "nothing runs on this data folder" in platform("down").ok().err


def test_down_ends_what_a_killed_supervisor_left_behind(tmp_path: Path) -> None:
    layout = Layout(tmp_path, free_port_base())
    options = ("--data-dir", str(tmp_path), "--port-base", str(layout.port_base))
    with subprocess.Popen([*COMMAND, *options, "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        wait_until(lambda: layout.record("mlflow").exists(), "all processes are started")
        up.kill()
        up.wait(10)
    left = processes_of(layout)
    assert len(left) >= 5

    said = modelyard(*options, "down").ok()

    assert f"stopped {len(left)} processes" in said.err
    assert [process for process in left if lives(process)] == []


def test_interrupt_while_starting_stops_what_was_started(tmp_path: Path) -> None:
    layout = Layout(tmp_path, free_port_base())
    options = ("--data-dir", str(tmp_path), "--port-base", str(layout.port_base))
    with subprocess.Popen(
        [*COMMAND, *options, "up"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as up:
        wait_until(lambda: layout.record("mlflow").exists(), "all processes are started")
        started = processes_of(layout)
        os.kill(up.pid, signal.SIGINT)
        _, err = up.communicate(timeout=60)

    assert up.returncode == 0, err
    assert "stopping" in err
    assert started and [process for process in started if lives(process)] == []
    assert find_supervisor(layout) is None
    assert list((tmp_path / "run").iterdir()) == []
