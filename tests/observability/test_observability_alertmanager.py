"""Who is told what: the Alertmanager's configuration of compose, asked by amtool."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

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
