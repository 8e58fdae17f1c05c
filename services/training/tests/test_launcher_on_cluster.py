"""How jobs end that a real cluster will not run: each with the cluster's own name for it, and none a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from launcher_kits import RealClusterKit
from modelyard_common.testing.required import kubeconfig
from modelyard_training.domain.ports import Job
from modelyard_training.domain.supervision import Presence

pytestmark = pytest.mark.cluster

RUN = "run-1"
Make = Callable[..., RealClusterKit]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    config = kubeconfig()
    with ExitStack() as stack:

        def made(**changes: Any) -> RealClusterKit:
            kit = RealClusterKit(config, tmp_path, **changes)
            stack.callback(kit.close)
            # Long enough for a kubelet to say what is wrong, and nothing here ever heals.
            kit.patience_s = 3.0
            return kit

        yield made


def job(kind: str, **changes: Any) -> Job:
    return Job(RUN, 1, {"run": RUN, "model": "m", "spec": {"behaviour": {"kind": kind}}}, **changes)


def test_out_of_memory_is_called_that(make: Make) -> None:
    kit = make()
    launcher = kit.make()
    launcher.launch(job("hungry", memory="48Mi"))
    seen = kit.settle(launcher, RUN, Presence.ENDED)
    assert (seen.exit_code, seen.detail) == (137, "OOMKilled")
    assert "at 48Mi: raise spec.train.resources.memory" in seen.reason
    assert kit.starts(RUN) == 1


@pytest.mark.parametrize(
    ("changes", "amounts", "words"),
    [
        pytest.param({"image": "modelyard.invalid/no/such:1"}, {}, "no/such:1 cannot be pulled", id="image"),
        pytest.param({"image": "Not An Image"}, {}, "cannot be pulled (InvalidImageName)", id="name of the image"),
        pytest.param({"token_secret": "nowhere"}, {}, '(FailedMount): MountVolume', id="Secret of a file"),
        pytest.param({"secrets": ("nowhere",)}, {}, 'secret "nowhere" not found', id="Secret of the environment"),
        pytest.param({}, {"cpu": "900"}, "cannot be scheduled (Unschedulable)", id="too many cores"),
        pytest.param({"service_account": "nobody"}, {}, "serviceaccount \"nobody\" not found", id="service account"),
    ],
)  # fmt: skip
def test_what_cannot_start_is_named_and_goes_when_it_is_stopped(
    make: Make, changes: dict[str, Any], amounts: dict[str, Any], words: str
) -> None:
    kit = make(**changes)
    launcher = kit.make()
    launcher.launch(job("end", **amounts))
    assert words in kit.settle(launcher, RUN, Presence.STUCK).reason
    launcher.terminate(RUN, 1)
    kit.settle(launcher, RUN, Presence.KILLED)
    launcher.launch(job("end"))
    assert launcher.sight(RUN, 1).presence is Presence.KILLED


def test_a_program_that_is_not_in_the_image_is_named(make: Make) -> None:
    kit = make(command=("/no/such/program",))
    launcher = kit.make()
    launcher.launch(job("end"))
    seen = kit.settle(launcher, RUN, Presence.ENDED)
    assert "the training job could not be started (StartError)" in seen.reason


def test_a_job_that_is_deleted_by_hand_is_gone_for_whoever_supervises(make: Make) -> None:
    kit = make()
    launcher = kit.make()
    launcher.launch(job("sleep"))
    kit.settle(launcher, RUN, Presence.ALIVE)
    kit.batch.delete_namespaced_job(f"{RUN}-1", kit.namespace, propagation_policy="Foreground")
    assert "somebody deleted its Job" in kit.settle(launcher, RUN, Presence.ENDED).reason
    kit.settle(launcher, RUN, Presence.ABSENT)


def test_a_deadline_that_passes_while_nobody_supervises_is_told_from_a_stop(make: Make) -> None:
    kit = make()
    launcher = kit.make()
    launcher.launch(job("sleep"))
    kit.settle(launcher, RUN, Presence.ALIVE)
    kit.batch.patch_namespaced_job(f"{RUN}-1", kit.namespace, {"spec": {"activeDeadlineSeconds": 1}})
    kit.settle(launcher, RUN, Presence.OVERDUE)
