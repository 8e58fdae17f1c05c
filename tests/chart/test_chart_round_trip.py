"""What people run first: `helm test`'s script and the curl of NOTES, against a real inference server with tokens."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from modelyard_common.auth.tokens import hash_token

from tests.chart.rendering import ROOT, SERVICES, Document, Helm, environment, merged, of_kind, pods, profile, umbrella

sys.path.insert(0, str(ROOT / "services/inference/tests"))

from inference_fakes import a_platform, make_bundle

SCRIPT = ROOT / "deploy/helm/inference/files/round_trip.py"
TOKEN = "a-token-of-a-client"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "tokens").write_text(f"tester client {hash_token(TOKEN)}\n")
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "wrong").write_text("another\n")
    return {name: folder / name for name in ("tokens", "token", "wrong")}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, Path]) -> Iterator[str]:
    """Give the address of a server that serves nothing."""
    with (
        a_platform(tmp_path_factory.mktemp("empty")) as platform,
        platform.inference(auth="token", tokens_file=tokens["tokens"]) as url,
    ):
        yield url


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, Path]) -> Iterator[str]:
    """Give the address of a server that serves the model ``power``."""
    bundle = make_bundle(tmp_path_factory.mktemp("bundle") / "one", seed=1)
    with a_platform(tmp_path_factory.mktemp("serving")) as platform:
        platform.registry.add(bundle)
        platform.registry.route("power", str(bundle.digest))
        with platform.inference(auth="token", tokens_file=tokens["tokens"]) as url:
            yield url


def round_trip(url: str, token: Path, model: str = "", *, patience_s: float = 20) -> subprocess.CompletedProcess[str]:
    """Run the script as its pod does."""
    told = {"PATH": os.environ["PATH"], "TOKEN_FILE": str(token), "TIMEOUT_S": str(patience_s)}
    command = [sys.executable, "-I", str(SCRIPT), url, model]
    return subprocess.run(command, env=told, capture_output=True, text=True, timeout=60, check=False)


def test_a_fresh_platform_passes_and_says_that_it_serves_nothing(empty: str, tokens: dict[str, Path]) -> None:
    done = round_trip(empty, tokens["token"])

    assert (done.returncode, done.stderr) == (0, "")
    assert "no model is served yet" in done.stdout


def test_a_model_that_is_named_must_answer_a_row(serving: str, tokens: dict[str, Path]) -> None:
    done = round_trip(serving, tokens["token"], "power")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "answered: power\n"


def test_every_model_that_is_served_must_answer(serving: str, tokens: dict[str, Path]) -> None:
    round_trip(serving, tokens["token"], "power")  # is served by then

    assert round_trip(serving, tokens["token"]).stdout == "answered: power\n"


def test_a_model_that_is_missing_fails_by_name(empty: str, tokens: dict[str, Path]) -> None:
    done = round_trip(empty, tokens["token"], "power", patience_s=0.5)

    assert done.returncode == 1
    assert "power is not served; served are: none" in done.stderr


def test_a_wrong_token_fails(serving: str, tokens: dict[str, Path]) -> None:
    done = round_trip(serving, tokens["wrong"], patience_s=0.5)

    assert done.returncode == 1
    assert "401" in done.stderr


def test_the_test_pod_runs_this_script_with_a_clients_token(helm: Helm) -> None:
    documents = umbrella(helm, "small", "ours")
    [config] = [one for one in of_kind(documents, "ConfigMap") if "round_trip.py" in one["data"]]
    found = [pod for pod in pods(documents) if pod.component == "round-trip"]

    assert config["data"]["round_trip.py"].strip() == SCRIPT.read_text().strip()
    assert {pod.owner["kind"] for pod in found} == {"Pod", "Job"}
    for pod in found:
        [container] = pod.spec["containers"]
        assert container["command"] == ["python", "-I", "/test/round_trip.py"]
        assert container["args"] == ["http://grid-inference:8080", "electricity"]
        assert environment(container)["TOKEN_FILE"] == "/etc/modelyard/auth/token"


@pytest.mark.parametrize("chart", ["modelyard", "inference"])
def test_the_curl_of_the_notes_works(helm: Helm, serving: str, tokens: dict[str, Path], chart: str) -> None:
    values = profile("small") if chart == "modelyard" else {}
    notes = helm.run("install", "modelyard", chart, values, "--dry-run=client").partition("NOTES:")[2]
    [line] = [line.strip() for line in notes.splitlines() if line.strip().startswith("curl ")]
    round_trip(serving, tokens["token"], "power")

    answer = _curl(line.replace("$TOKEN", TOKEN), serving)

    assert answer.status_code == 200
    assert [entry["name"] for entry in answer.json()] == ["power"]
    assert "get secret modelyard-auth --output jsonpath='{.data.client}'" in notes
    # The port is forwarded in the background, and may not be open yet.
    assert {"--retry", "--retry-connrefused"} <= set(shlex.split(line))


def _curl(line: str, base: str) -> httpx.Response:
    """Do what curl would, at another address."""
    words = iter(shlex.split(line)[1:])
    headers, body, url = {}, None, ""
    for word in words:
        if word == "--header":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "--data":
            body = next(words)
        elif word.startswith("http"):
            url = re.sub(r"^http://127\.0\.0\.1:8080", base, word)
        elif word == "--retry":
            assert int(next(words)) > 0
        else:
            assert word in {"--fail", "--retry-connrefused"}
    return httpx.request("POST" if body else "GET", url, headers=headers, content=body)


@pytest.mark.parametrize("chart", ["registry", "training", "drift", "operator", "mlflow"])
def test_notes_name_the_service_and_what_is_off(helm: Helm, chart: str) -> None:
    values = {"global": {"networkPolicy": {"enabled": False}}, "persistence": {"enabled": True}}

    notes = helm.run("install", f"modelyard-{chart}", chart, values, "--dry-run=client").partition("NOTES:")[2]

    assert f"port-forward service/modelyard-{chart} " in notes
    assert "NetworkPolicies are off" in notes
    assert "emptyDir" not in notes


def test_notes_of_the_platform_say_who_may_not_call_and_what_dies_with_a_pod(helm: Helm) -> None:
    # Helm shows the notes of the chart that is installed, and not those of the charts in it.
    opened = {"networkPolicy": {"clients": [{"podSelector": {}}]}}
    others = ("registry", "training", "drift", "operator", "mlflow")

    closed = notes_of(helm, profile("ci"))
    partly = notes_of(helm, merged(profile("small"), {"inference": opened}))
    wide = notes_of(helm, merged(profile("small"), dict.fromkeys(SERVICES, opened)))
    off = notes_of(helm, merged(profile("small"), {"global": {"networkPolicy": {"enabled": False}}}))

    assert "may call registry, training, inference, drift, operator, mlflow;" in closed
    assert "The spool of inference is on an emptyDir" in closed
    assert f"may call {', '.join(others)};" in partly
    assert "emptyDir" not in partly
    assert "may call" not in wide
    assert "NetworkPolicies are off" in off
    assert "may call" not in off


def notes_of(helm: Helm, values: Document) -> str:
    """Return the umbrella's notes."""
    return helm.run("install", "modelyard", "modelyard", values, "--dry-run=client").partition("NOTES:")[2]
