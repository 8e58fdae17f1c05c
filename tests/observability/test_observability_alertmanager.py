"""Who is told what: the Alertmanager's configuration of compose, asked by amtool and by Alertmanager itself."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from modelyard_common.testing import free_port

from tests.observability.expressions import alerts

FILE = Path(__file__).parents[2] / "deploy/compose/alertmanager.yml"
NAMES = {rule["alert"] for rule in alerts()}


def configuration() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def run(amtool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([amtool, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_the_configuration_is_one_that_alertmanager_takes(amtool: str) -> None:
    done = run(amtool, "check-config", str(FILE))

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "rule", alerts(), ids=lambda rule: "-".join([rule["alert"], rule["labels"].get("long", "")]).strip("-")
)
def test_an_alert_reaches_who_has_to_act(amtool: str, rule: dict[str, Any]) -> None:
    labels = [f"{name}={value}" for name, value in {**rule["labels"], "alertname": rule["alert"]}.items()]
    receiver = "page" if rule["labels"]["severity"] == "critical" else "ticket"

    done = run(
        amtool,
        "config",
        "routes",
        "test",
        f"--config.file={FILE}",
        f"--verify.receivers={receiver}",
        "namespace=n",
        *labels,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [receiver]


def test_what_is_not_ours_is_a_ticket(amtool: str) -> None:
    done = run(amtool, "config", "routes", "test", f"--config.file={FILE}", "alertname=Watchdog", "severity=none")

    assert done.stdout.split() == ["ticket"]


def test_amtool_would_see_an_alert_on_the_wrong_way(amtool: str) -> None:
    asked = ("config", "routes", "test", f"--config.file={FILE}", "--verify.receivers=ticket", "severity=critical")

    assert run(amtool, *asked).returncode == 1


def test_what_is_silenced_by_another_alert_exists() -> None:
    named = {
        name
        for rule in configuration()["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        if matcher.startswith("alertname")
        for name in matcher.split('"')[1].split("|")
    }

    assert named
    assert named <= NAMES


def test_nothing_that_is_urgent_is_silenced_by_another_service() -> None:
    urgent = {rule["alert"] for rule in alerts() if rule["labels"]["severity"] == "critical"}
    silenced = {
        name
        for rule in configuration()["inhibit_rules"]
        for matcher in rule["target_matchers"]
        if matcher.startswith("alertname")
        for name in matcher.split('"')[1].split("|")
    }

    assert silenced & urgent == set()


def test_alerts_are_grouped_by_what_is_wrong_and_with_which_model() -> None:
    assert configuration()["route"]["group_by"] == ["alertname", "namespace", "model"]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[httpx.Client]:
    """The real Alertmanager with the configuration of compose."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("alertmanager is not installed; tools/install-test-packages.sh does it")
    port = free_port()
    command = [program, f"--config.file={FILE}", f"--storage.path={tmp_path}", "--cluster.listen-address="]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
        try:
            eventually(lambda: answers(http), (tmp_path / "log").read_text)
            yield http
        finally:
            process.terminate()
            process.wait(20)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


def eventually(check: Callable[[], Any], told: Callable[[], str] = lambda: "") -> Any:
    deadline = time.monotonic() + 30
    while not (found := check()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)
    return found


DOWN = {"alertname": "ServiceIsDown", "severity": "critical", "job": "modelyard-drift", "namespace": "n"}
BURNS = {"alertname": "InferenceLatencyBurns", "slo": "inference-latency", "namespace": "n"}
LAST = {"alertname": "TheLast", "namespace": "last"}


def silenced(http: httpx.Client, alerts: list[dict[str, str]]) -> set[str]:
    """Return which of these alerts nobody is told about.

    What silences another is known a moment after it is stored, one after the other in the order of
    arrival: a pair that comes last, one of it silenced, says that all before it are known.
    """
    told = [*alerts, LAST | {"severity": "critical"}, LAST | {"severity": "warning"}]
    http.post("/api/v2/alerts", json=[{"labels": labels} for labels in told]).raise_for_status()

    def looked_at() -> set[str]:
        found: list[dict[str, Any]] = http.get("/api/v2/alerts").json()
        return {
            f"{alert['labels']['alertname']}/{alert['labels']['severity']}"
            for alert in found
            if alert["status"]["state"] == "suppressed"
        }

    last = f"{LAST['alertname']}/warning"
    eventually(lambda: last in looked_at())
    return looked_at() - {last}


@pytest.mark.parametrize(
    ("told", "quiet"),
    [
        ([DOWN, {"alertname": "SpoolGrows", "severity": "warning", "namespace": "n"}], {"SpoolGrows/warning"}),
        ([DOWN, {"alertname": "SpoolGrows", "severity": "warning", "namespace": "other"}], set()),
        ([DOWN, {"alertname": "PredictionLogLosesEvents", "severity": "critical", "namespace": "n"}], set()),
        (
            [BURNS | {"severity": "critical"}, BURNS | {"severity": "warning"}],
            {"InferenceLatencyBurns/warning"},
        ),
        (
            [BURNS | {"severity": "critical"}, BURNS | {"severity": "warning", "slo": "other"}],
            set(),
        ),
    ],
    ids=["follows", "elsewhere", "urgent", "same-budget", "other-budget"],
)
def test_what_follows_from_another_alert_is_not_told_twice(
    alertmanager: httpx.Client, told: list[dict[str, str]], quiet: set[str]
) -> None:
    assert silenced(alertmanager, told) == quiet
