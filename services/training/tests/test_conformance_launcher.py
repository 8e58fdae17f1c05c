"""What every launcher must do, as one suite. A new launcher gets a kit here and passes the same tests.

The fake that the use cases are tested with is in the suite too: a fake that behaves otherwise would prove nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from fake_kubelet import FakeKubelet
from kubernetes import client, config
from modelyard_common.clock import SystemClock
from modelyard_common.cluster import Cluster
from modelyard_common.testing import running
from modelyard_common.testing.api_server import ApiServer, kubeconfig_of
from modelyard_training.adapters.launchers.job_manifest import JobTemplate
from modelyard_training.adapters.launchers.kubernetes import KubernetesLauncher
from modelyard_training.adapters.launchers.local import LocalLauncher
from modelyard_training.domain.ports import Job, Launcher
from modelyard_training.domain.supervision import Presence, Sighting

SLEEP = {"kind": "sleep"}
RUN = "run-1"


class Kit(Protocol):
    """What the suite needs to know of a launcher besides the port."""

    def make(self) -> Launcher:
        """Return a launcher as a service has it that was just started on the same machine."""

    def starts(self, run: str) -> int:
        """Return how often jobs of a run have really started."""

    def crash(self, run: str) -> None:
        """Let the running processes of a run vanish."""

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        """Wait until an attempt is found so."""


class LocalKit:
    """Real processes of this machine."""

    def __init__(self, root: Path, end_jobs: Callable[[Path], None]) -> None:
        self.root = root
        self.end_jobs = end_jobs

    def make(self) -> LocalLauncher:
        command = [sys.executable, "-S", str(Path(__file__).with_name("fake_job.py"))]
        return LocalLauncher(self.root, command=command, environment={"PATH": os.environ["PATH"]})

    def starts(self, run: str) -> int:
        path = self.root / run / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def crash(self, run: str) -> None:
        self.end_jobs(self.root)

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        deadline = time.monotonic() + 20
        while (seen := launcher.sight(run, attempt)).presence is not presence or self._starting(run, seen):
            assert time.monotonic() < deadline, f"still {seen}"
            time.sleep(0.01)
        return seen

    def _starting(self, run: str, seen: Sighting) -> bool:
        return seen.presence is Presence.ALIVE and self.starts(run) == 0

    def close(self) -> None:
        self.end_jobs(self.root)


class _ClusterKit:
    """A Kubernetes launcher over some API server."""

    grace_s = 1.0

    def __init__(self, kubeconfig: Path, namespace: str, template: JobTemplate, logs: Path) -> None:
        self.clusters: list[Cluster] = []
        self.kubeconfig, self.namespace, self.template, self.logs = kubeconfig, namespace, template, logs

    def make(self) -> KubernetesLauncher:
        self.clusters.append(Cluster.connect(self.kubeconfig))
        return KubernetesLauncher(
            self.clusters[-1],
            namespace=self.namespace,
            template=self.template,
            logs=self.logs,
            clock=SystemClock(),
            patience_s=600,
        )

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        deadline = time.monotonic() + 60
        while (seen := launcher.sight(run, attempt)).presence is not presence or self._starting(run, seen):
            assert time.monotonic() < deadline, f"still {seen}"
            time.sleep(0.02)
        return seen

    def _starting(self, run: str, seen: Sighting) -> bool:
        return seen.presence is Presence.ALIVE and self.starts(run) == 0

    def starts(self, run: str) -> int:
        raise NotImplementedError

    def close(self) -> None:
        for cluster in self.clusters:
            cluster.close()


class FakeClusterKit(_ClusterKit):
    """A fake API server on a real socket, and containers that are processes of this machine."""

    def __init__(self, folder: Path, serve: Callable[[ApiServer], str]) -> None:
        server = ApiServer()
        command = (sys.executable, "-S", str(Path(__file__).with_name("fake_job.py")))
        template = JobTemplate(image="trainer", command=command, grace_s=self.grace_s)
        super().__init__(kubeconfig_of(folder, serve(server)), "default", template, folder / "logs")
        self.kubelet = FakeKubelet(server, folder / "pods")

    def starts(self, run: str) -> int:
        return self.kubelet.starts(run)

    def crash(self, run: str) -> None:
        self.kubelet.crash(run)

    def close(self) -> None:
        self.kubelet.close()
        super().close()


class RealClusterKit(_ClusterKit):
    """The cluster of KUBECONFIG; each test gets a namespace that enforces restricted pods."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        source = Path(__file__).with_name("fake_job.py").read_text()
        template = JobTemplate(
            image=os.environ.get("MODELYARD_TEST_JOB_IMAGE", "docker.io/library/python:3.11-slim"),
            command=("python3", "-c", source),
            grace_s=self.grace_s,
        )
        config.load_kube_config(str(kubeconfig))
        self.core = client.CoreV1Api()
        namespace = f"launcher-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": namespace, "labels": labels}})
        super().__init__(kubeconfig, namespace, template, folder / "logs")

    def _pods(self, run: str) -> list[Any]:
        pods: list[Any] = self.core.list_namespaced_pod(self.namespace, label_selector=f"modelyard.dev/run={run}").items
        return pods

    def starts(self, run: str) -> int:
        return sum(pod.status.phase != "Pending" for pod in self._pods(run))

    def crash(self, run: str) -> None:
        for pod in self._pods(run):
            if pod.status.phase == "Running":
                self.core.delete_namespaced_pod(pod.metadata.name, self.namespace, grace_period_seconds=0)

    def close(self) -> None:
        self.core.delete_namespace(self.namespace)
        self.core.api_client.close()
        super().close()


class MemoryKit:
    """The fake, acting out what jobs are told to do."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        launch = fake.launch

        def act(job: Job) -> None:
            before = len(fake.launches)
            launch(job)
            behaviour = job.document["spec"]["behaviour"]
            if len(fake.launches) == before:
                return
            fake.logs[job.run] = fake.logs.get(job.run, "") + behaviour.get("say", f"hello from {job.run}") + "\n"
            fake.obedient = behaviour["kind"] != "stubborn"
            if behaviour["kind"] == "end":
                fake.end(job.run, job.attempt, code=behaviour.get("code", 0))
            if behaviour["kind"] == "result":
                fake.results[job.run, job.attempt] = behaviour["report"]
                fake.end(job.run, job.attempt, code=1)

        fake.launch = act

    def make(self) -> Launcher:
        launcher: Launcher = self.fake
        return launcher

    def starts(self, run: str) -> int:
        return sum(launched == run for launched, _ in self.fake.launches)

    def crash(self, run: str) -> None:
        for key, seen in list(self.fake.sightings.items()):
            if key[0] == run and seen.presence is Presence.ALIVE:
                self.fake.lose(*key)

    def settle(self, launcher: Launcher, run: str, presence: Presence, attempt: int = 1) -> Sighting:
        seen = launcher.sight(run, attempt)
        assert seen.presence is presence
        return seen

    def close(self) -> None:
        """Nothing is left behind."""


@pytest.fixture(params=["memory", "local", "kubernetes", pytest.param("cluster", marks=pytest.mark.cluster)])
def kit(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_launcher: Callable[[], Any],
    end_jobs: Callable[[Path], None],
) -> Iterator[Kit]:
    with ExitStack() as stack:
        made: Any
        match request.param:
            case "memory":
                made = MemoryKit(make_launcher())
            case "local":
                made = LocalKit(tmp_path / "runs", end_jobs)
            case "kubernetes":
                made = FakeClusterKit(tmp_path, lambda server: stack.enter_context(running(server.app)))
            case _:
                if "KUBECONFIG" not in os.environ:
                    pytest.skip("KUBECONFIG names no cluster")
                made = RealClusterKit(Path(os.environ["KUBECONFIG"]), tmp_path)
        stack.callback(made.close)
        yield made


def job(behaviour: dict[str, Any], *, run: str = RUN, attempt: int = 1) -> Job:
    return Job(run, attempt, {"run": run, "spec": {"behaviour": behaviour}, "work_dir": ""})


def test_what_was_never_launched_is_absent(kit: Kit) -> None:
    assert kit.make().sight(RUN, 1).presence is Presence.ABSENT


def test_a_launched_attempt_is_alive_and_found_again_after_a_restart(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job(SLEEP))
    assert launcher.sight(RUN, 1).presence is Presence.ALIVE
    kit.settle(launcher, RUN, Presence.ALIVE)
    assert kit.make().sight(RUN, 1).presence is Presence.ALIVE


def test_an_attempt_starts_once_however_often_it_is_launched(kit: Kit) -> None:
    launcher = kit.make()
    for _ in range(3):
        launcher.launch(job(SLEEP))
    kit.settle(launcher, RUN, Presence.ALIVE)
    kit.make().launch(job(SLEEP))
    assert kit.starts(RUN) == 1


def test_an_attempt_starts_once_when_several_services_launch_it_at_the_same_time(kit: Kit) -> None:
    """None of them knows of the others, as when a service is killed between the launch and its record."""
    launchers = [kit.make() for _ in range(4)]
    threads = [threading.Thread(target=launcher.launch, args=(job({"kind": "end"}),)) for launcher in launchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for launcher in launchers:
        kit.settle(launcher, RUN, Presence.ENDED)
        launcher.launch(job({"kind": "end"}))
    assert kit.starts(RUN) == 1


@pytest.mark.parametrize("code", [0, 3])
def test_an_attempt_that_ended_tells_its_exit_code_and_never_starts_again(kit: Kit, code: int) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "end", "code": code}))
    assert kit.settle(launcher, RUN, Presence.ENDED).exit_code == code
    again = kit.make()
    again.launch(job({"kind": "end"}))
    assert again.sight(RUN, 1).exit_code == code
    assert kit.starts(RUN) == 1


def test_a_lost_attempt_is_told_from_one_that_ended_and_another_may_follow(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job(SLEEP))
    kit.settle(launcher, RUN, Presence.ALIVE)
    kit.crash(RUN)
    kit.settle(launcher, RUN, Presence.KILLED)
    assert kit.make().sight(RUN, 1).presence is Presence.KILLED
    launcher.launch(job({"kind": "end"}, attempt=2))
    kit.settle(launcher, RUN, Presence.ENDED, 2)
    assert kit.starts(RUN) == 2


def test_terminating_ends_a_job_that_listens_also_after_a_restart(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job(SLEEP))
    kit.settle(launcher, RUN, Presence.ALIVE)
    again = kit.make()
    again.terminate(RUN, 1)
    again.terminate(RUN, 1)
    kit.settle(again, RUN, Presence.KILLED)


def test_a_job_that_does_not_listen_lives_until_it_is_killed(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "stubborn"}))
    kit.settle(launcher, RUN, Presence.ALIVE)
    launcher.terminate(RUN, 1)
    assert launcher.sight(RUN, 1).presence is Presence.ALIVE
    launcher.kill(RUN, 1)
    kit.settle(launcher, RUN, Presence.KILLED)


def test_an_attempt_that_is_killed_before_its_launch_never_starts(kit: Kit) -> None:
    launcher = kit.make()
    launcher.kill(RUN, 1)
    launcher.launch(job({"kind": "end"}))
    kit.make().launch(job({"kind": "end"}))
    assert launcher.sight(RUN, 1).presence is Presence.KILLED
    assert kit.starts(RUN) == 0


def test_stopping_what_is_gone_changes_nothing(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "end", "code": 3}))
    kit.settle(launcher, RUN, Presence.ENDED)
    launcher.tidy(RUN)
    assert launcher.sight(RUN, 1).exit_code == 3


def test_a_report_that_a_job_left_behind_is_found(kit: Kit) -> None:
    launcher = kit.make()
    assert launcher.result(RUN, 1) is None
    launcher.launch(job({"kind": "result", "report": {"seq": 3}}))
    kit.settle(launcher, RUN, Presence.ENDED)
    assert kit.make().result(RUN, 1) == {"seq": 3}


def test_the_log_is_read_in_pieces_over_all_attempts_and_survives_tidying(kit: Kit) -> None:
    launcher = kit.make()
    assert launcher.log(RUN).text == ""
    for attempt, word in ((1, "first"), (2, "second")):
        launcher.launch(job({"kind": "end", "say": word}, attempt=attempt))
        kit.settle(launcher, RUN, Presence.ENDED, attempt)
    launcher.tidy(RUN)
    page = launcher.log(RUN, limit_bytes=3)
    assert (page.text, page.next_offset) == ("fir", 3)
    assert launcher.log(RUN, offset=3).text == "st\nsecond\n"
    assert launcher.log(RUN, offset=-4).text == "ond\n"
    assert launcher.log(RUN, offset=13).next_offset == 13


def test_runs_do_not_know_each_other(kit: Kit) -> None:
    launcher = kit.make()
    launcher.launch(job({"kind": "end"}, run="run-1"))
    launcher.launch(job({"kind": "end"}, run="run-2"))
    kit.settle(launcher, "run-1", Presence.ENDED)
    kit.settle(launcher, "run-2", Presence.ENDED)
    assert (kit.starts("run-1"), kit.starts("run-2")) == (1, 1)


def test_a_launcher_that_can_launch_is_healthy(kit: Kit) -> None:
    assert kit.make().check() is None
