"""What only processes of a machine can do: leave children, lose their shim, see the service's environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from modelyard_common.errors import Invalid
from modelyard_training.adapters.launchers.attempt import Attempt
from modelyard_training.adapters.launchers.local import LocalLauncher
from modelyard_training.domain.ports import Job
from modelyard_training.domain.supervision import Presence

FAKE = str(Path(__file__).with_name("fake_job.py"))


@pytest.fixture
def root(tmp_path: Path, end_jobs: Callable[[Path], None]) -> Iterator[Path]:
    yield tmp_path / "runs"
    end_jobs(tmp_path / "runs")


def launcher_in(root: Path, *command: str) -> LocalLauncher:
    return LocalLauncher(
        root, command=command or (sys.executable, "-S", FAKE), environment={"PATH": os.environ["PATH"]}
    )


def job(kind: str, *, cpu: str = "1", **behaviour: Any) -> Job:
    return Job("run-1", 1, {"run": "run-1", "spec": {"behaviour": {"kind": kind} | behaviour}, "work_dir": ""}, cpu=cpu)


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def started(root: Path) -> int:
    """Wait for the job; return its process id."""
    eventually(lambda: (root / "run-1" / "starts").exists() and (root / "run-1" / "starts").read_text().endswith("\n"))
    return int((root / "run-1" / "starts").read_text())


def session(root: Path) -> list[psutil.Process]:
    leader = json.loads((root / "run-1/attempt-1/process.json").read_text())["pid"]
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_job_gets_a_small_environment_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_SECRET", "of the service")
    launcher = launcher_in(root)
    launcher.launch(job("end", cpu="2500m"))
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.ENDED)
    environment = json.loads((root / "run-1/attempt-1/environment.json").read_text())
    assert environment["HOME"] == str(root / "run-1/attempt-1")
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "2"
    assert "MODELYARD_SECRET" not in environment
    document = json.loads((root / "run-1/attempt-1/job.json").read_text())
    assert document["work_dir"] == str(root / "run-1/attempt-1")


def test_killing_a_job_kills_everything_that_it_started(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("family"))
    started(root)
    assert len(session(root)) == 5  # shim, job, three children, one of them in a group of its own
    launcher.kill("run-1", 1)
    eventually(lambda: session(root) == [])
    assert launcher.sight("run-1", 1).presence is Presence.KILLED


def test_what_a_job_leaves_behind_ends_with_it(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("family"))
    started(root)
    (root / "run-1/go").touch()
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.ENDED)
    eventually(lambda: session(root) == [])


def test_a_job_whose_shim_was_killed_counts_as_alive_and_can_be_killed(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("sleep"))
    started(root)
    os.kill(json.loads((root / "run-1/attempt-1/process.json").read_text())["pid"], signal.SIGKILL)
    again = launcher_in(root)
    again.launch(job("sleep"))
    assert launcher.sight("run-1", 1).presence is again.sight("run-1", 1).presence is Presence.ALIVE
    again.kill("run-1", 1)
    eventually(lambda: again.sight("run-1", 1).presence is Presence.KILLED)
    assert session(root) == []
    started(root)


def test_a_killed_job_is_told_by_its_signal(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("sleep"))
    os.kill(started(root), signal.SIGKILL)
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.KILLED)
    assert launcher.sight("run-1", 1).detail == "SIGKILL"


def test_a_job_that_tidies_up_when_it_is_terminated_counts_as_terminated(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("end", code=143))
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.KILLED)
    assert launcher.sight("run-1", 1).detail == "SIGTERM"


def test_a_crash_of_the_job_itself_is_not_taken_for_a_kill(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("sleep"))
    os.kill(started(root), signal.SIGSEGV)
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.ENDED)
    assert launcher.sight("run-1", 1).detail == "SIGSEGV"


def test_another_process_that_got_the_number_of_a_lost_one_is_left_alone(root: Path) -> None:
    launcher = launcher_in(root)
    files = Attempt(root / "run-1/attempt-1")
    files.folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        files.process_file.write_text(json.dumps({"pid": stranger.pid, "create_time": 1.0}))
        launcher.terminate("run-1", 1)
        launcher.kill("run-1", 1)
        assert launcher.sight("run-1", 1).presence is Presence.KILLED
        assert stranger.poll() is None
        stranger.kill()


def test_a_command_that_is_not_there_ends_with_a_reason_in_the_log(root: Path) -> None:
    launcher = launcher_in(root, "/nowhere/python")
    launcher.launch(job("end"))
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.ENDED)
    assert launcher.sight("run-1", 1).exit_code == 127
    assert "the training process could not be started" in launcher.log("run-1").text
    assert launcher.check() == "/nowhere/python is not a program"


def test_a_log_is_cut_between_characters(root: Path) -> None:
    launcher = launcher_in(root)
    (root / "run-1").mkdir(parents=True)
    (root / "run-1/log.txt").write_bytes("aéz€\n".encode())
    page = launcher.log("run-1", limit_bytes=2)
    assert (page.text, page.next_offset) == ("a", 1)
    assert launcher.log("run-1", offset=page.next_offset).text == "éz€\n"
    assert launcher.log("run-1", offset=-3).text == "\n"


def test_tidying_keeps_records_and_removes_what_was_worked_with(root: Path) -> None:
    launcher = launcher_in(root)
    launcher.launch(job("end"))
    eventually(lambda: launcher.sight("run-1", 1).presence is Presence.ENDED)
    launcher.tidy("run-1")
    left = {path.name for path in (root / "run-1/attempt-1").iterdir()}
    assert left == {"job.json", "lock", "process.json", "ended.json"}


def test_a_name_that_leads_elsewhere_is_no_run(root: Path) -> None:
    with pytest.raises(Invalid, match="not the id of a run"):
        launcher_in(root).sight("../../etc", 1)
