"""The container that runs models beside inference: one folder is shared, nothing else, and nobody waits for it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from modelyard_inference.settings import InferenceSettings
from modelyard_inference_runtime.settings import RuntimeSettings

from tests.chart.rendering import Document, Helm, environment, merged, pods, profile, umbrella

PREFIX = "MODELYARD_INFERENCE_RUNTIME_"


def the_pod(helm: Helm, *, on: bool = True, name: str = "ci", **runtime: Any) -> Document:
    values = merged(profile(name), {"inference": {"runtime": {"enabled": on, **runtime}}})
    [pod] = [pod for pod in pods(helm.render("modelyard", values)) if pod.component == "inference"]
    return pod.spec


def mounts(container: Document) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


def test_it_is_off_unless_it_is_asked_for_and_then_leaves_nothing(helm: Helm) -> None:
    pod = the_pod(helm, on=False)

    assert "initContainers" not in pod
    assert not {"runtime", "runtime-tmp"} & {volume["name"] for volume in pod["volumes"]}
    assert "MODELYARD_INFERENCE_RUNTIME_SOCKET" not in environment(pod["containers"][0])


def test_both_meet_in_one_folder_and_the_runtime_sees_no_token_no_spool_and_no_other_folder(helm: Helm) -> None:
    pod = the_pod(helm)
    [server], [runtime] = pod["containers"], pod["initContainers"]

    assert set(mounts(runtime)) == {"runtime", "runtime-tmp"}
    assert mounts(server)["runtime"] == mounts(runtime)["runtime"] == "/run/modelyard"
    assert "runtime-tmp" not in mounts(server)
    sockets = {environment(one)[f"{PREFIX}SOCKET"] for one in (server, runtime)}
    assert sockets == {"/run/modelyard/runtime.sock"}


def test_it_is_a_native_side_container_that_inference_does_not_wait_for(helm: Helm) -> None:
    [runtime] = the_pod(helm)["initContainers"]

    assert runtime["restartPolicy"] == "Always"
    assert not {"startupProbe", "readinessProbe", "ports"} & runtime.keys()
    assert runtime["livenessProbe"]["exec"]["command"][-2:] == ["INFERENCE_RUNTIME", "socket"]
    assert runtime["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", ["small", "ha", "ci"])
def test_every_variable_is_a_setting_of_the_runtime_and_a_valid_one(
    helm: Helm, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [runtime] = the_pod(helm, name=name, pyfunc=True, memoryPerVersion=2_000_000_000)["initContainers"]
    for variable in [variable for variable in os.environ if variable.startswith("MODELYARD_")]:
        monkeypatch.delenv(variable)
    told = environment(runtime)
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)

    settings = RuntimeSettings()

    assert {variable.removeprefix(PREFIX).lower() for variable in told} <= RuntimeSettings.model_fields.keys()
    assert (settings.pyfunc, settings.memory_bytes) == (True, 2_000_000_000)
    assert settings.socket.parent == InferenceSettings().runtime_socket.parent  # type: ignore[union-attr]


def test_code_is_allowed_by_nobody_but_the_operator(helm: Helm) -> None:
    [runtime] = the_pod(helm)["initContainers"]

    assert environment(runtime)[f"{PREFIX}PYFUNC"] == "false"


def test_side_containers_of_the_installer_stand_beside_it(helm: Helm) -> None:
    documents = umbrella(helm, "small", "hatches")
    [pod] = [pod for pod in pods(documents) if pod.component == "inference"]

    assert [one["name"] for one in pod.spec["initContainers"]] == ["before", "runtime"]
    assert {"ca", "runtime"} <= {volume["name"] for volume in pod.spec["volumes"]}


@pytest.mark.parametrize(
    ("runtime", "why"),
    [
        ({"enable": True}, "enable"),
        ({"pyfunc": "yes"}, "pyfunc"),
        ({"memoryPerVersion": -1}, "memoryPerVersion"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"resources": {"requests": {"cpu": "lots"}}}, "cpu"),
        ({"liveness": {"periodSeconds": 0}}, "periodSeconds"),
        ({"size": "much"}, "size"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_values_are_refused_by_the_schema(helm: Helm, runtime: Document, why: str) -> None:
    with pytest.raises(Exception, match=why):
        helm.render("modelyard", merged(profile("small"), {"inference": {"runtime": runtime}}))


@pytest.mark.parametrize("setting", ["runtimeSocket", "runtimePyfunc", "runtimeMemoryBytes"])
def test_what_the_runtimes_values_decide_is_no_setting(helm: Helm, setting: str) -> None:
    with pytest.raises(Exception, match=setting):
        helm.render("modelyard", merged(profile("small"), {"inference": {"settings": {setting: "x"}}}))
