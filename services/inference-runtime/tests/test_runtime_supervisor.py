"""Versions belong to whoever asked for them; their processes are real, their models are played by a few lines."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from modelyard_bundle.isolated import INVALID, OK, Load, Loaded, Replace
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.frames import packed
from modelyard_inference_runtime.settings import RuntimeSettings, worker_environment
from modelyard_inference_runtime.supervisor import Limits, Supervisor

A, B = (Load("folder", "sha256:" + letter * 64, "sklearn") for letter in "ab")
LIVES = f"import sys; sys.stdout.buffer.write({packed(OK, b'')!r}); sys.stdout.flush(); sys.stdin.read()"
REFUSES = f"import sys; sys.stdout.buffer.write({packed(INVALID, b'no model in it')!r})"
DIES_LOADING = "import os; os.abort()"
DIES_AT_ONCE = f"import os, sys; sys.stdout.buffer.write({packed(OK, b'')!r}); sys.stdout.flush(); os.abort()"
HANGS = "import sys; sys.stdin.read()"


def eventually(check: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return found


@pytest.fixture
def supervisors(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(script: str, **limits: Any) -> Supervisor:
        def start(load: Load, address: Path) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-S", "-c", script]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        made.append(Supervisor(tmp_path, start, Limits(**limits), monotonic=time.monotonic))
        return made[-1]

    yield make
    for one in made:
        one.close()


def states(supervisor: Supervisor) -> dict[str, str]:
    return {version.digest: version.state for version in supervisor.status().versions}


def test_a_version_lives_until_its_last_holder_lets_go(supervisors: Callable[..., Supervisor]) -> None:
    supervisor = supervisors(LIVES)
    one, other = object(), object()

    first, second = supervisor.load(one, A), supervisor.load(other, A)
    supervisor.let_go(one)
    kept = states(supervisor)
    supervisor.unload(other, A.digest)

    assert first == second
    assert kept == {A.digest: "ready"}
    assert states(supervisor) == {}
    assert not psutil.pid_exists(first.process)


def test_a_version_that_cannot_be_loaded_is_refused_in_its_own_words_and_leaves_nothing(
    supervisors: Callable[..., Supervisor],
) -> None:
    supervisor = supervisors(REFUSES)

    with pytest.raises(Invalid, match="no model in it"):
        supervisor.load(object(), A)

    assert states(supervisor) == {}


def test_a_process_that_dies_while_it_loads_is_tried_twice_and_refused(supervisors: Callable[..., Supervisor]) -> None:
    supervisor = supervisors(DIES_LOADING)

    with pytest.raises(Invalid, match="ended while it loaded, because of SIGABRT"):
        supervisor.load(object(), A)


def test_a_process_that_never_says_that_it_is_ready_is_given_up(supervisors: Callable[..., Supervisor]) -> None:
    supervisor = supervisors(HANGS, start_timeout_s=0.3)

    with pytest.raises((Invalid, Unavailable)):
        supervisor.load(object(), A)


def test_quarantine_outlives_the_unloading_of_a_version(supervisors: Callable[..., Supervisor]) -> None:
    supervisor = supervisors(DIES_AT_ONCE, crash_limit=2)
    holder = object()
    # It may be over before anybody looks.
    with contextlib.suppress(Invalid, Unavailable):
        supervisor.load(holder, A)
    eventually(lambda: states(supervisor).get(A.digest) in (None, "quarantined"))
    supervisor.let_go(holder)

    with pytest.raises(Invalid, match=r"ended 2 times within 300 s, the last time because of SIGABRT; it is not"):
        supervisor.load(object(), A)


def test_a_process_that_hangs_is_replaced_once_and_only_if_it_is_still_the_one(
    supervisors: Callable[..., Supervisor],
) -> None:
    supervisor = supervisors(LIVES)
    first = supervisor.load(object(), A)

    supervisor.replace(Replace(A.digest, first.process + 1, "somebody is mistaken"))
    same = supervisor.load(object(), A)
    supervisor.replace(Replace(A.digest, first.process, "it did not answer within 1 s"))
    eventually(lambda: not psutil.pid_exists(first.process))

    def another() -> Loaded | None:
        """Return the process that took its place, once the supervisor knows that the first has ended."""
        found = supervisor.load(object(), A) if states(supervisor)[A.digest] == "ready" else first
        return found if found.process != first.process else None

    second = eventually(another)

    assert same == first
    assert second.address == first.address


def test_the_number_of_versions_is_bounded(supervisors: Callable[..., Supervisor]) -> None:
    supervisor = supervisors(LIVES, most_versions=1)
    supervisor.load(object(), A)

    with pytest.raises(Unavailable, match="1 versions are loaded already"):
        supervisor.load(object(), B)


@pytest.mark.parametrize(
    ("load", "allowed", "why"),
    [
        (Load("f", A.digest, "onnx"), True, "no onnx runtime here"),
        (Load("f", A.digest, "pyfunc"), False, "MODELYARD_INFERENCE_RUNTIME_PYFUNC=true"),
        (Load("f", "../../etc/passwd", "sklearn"), False, "digest"),
    ],
)
def test_what_may_not_be_loaded_starts_no_process(
    supervisors: Callable[..., Supervisor], load: Load, allowed: bool, why: str
) -> None:
    supervisor = supervisors("raise SystemExit('started')", pyfunc=allowed)

    with pytest.raises(Exception, match=why):
        supervisor.load(object(), load)

    assert states(supervisor) == {}


def test_a_models_process_gets_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MODELYARD_INFERENCE_TOKEN_FILE", "/secret")

    found = worker_environment(RuntimeSettings().threads)

    assert "secret" not in "".join(found.values())
    assert found["OMP_NUM_THREADS"] == "1"
    assert "PATH" in found
