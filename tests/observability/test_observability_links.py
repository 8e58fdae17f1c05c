"""The address of the runbooks that compose is told reaches whoever is told of an alert, and nothing else of it does."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelyard_common.testing import free_port

from tests.compose.definition import EXAMPLE, services, variables
from tests.observability.conftest import installed
from tests.observability.expressions import alerts
from tests.servers import Quiet, listening
from tools.observability.alerts import RUNBOOKS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An Alertmanager as Prometheus sees it; yields its address and what it is told."""
    told: list[dict[str, Any]] = []

    class Handler(Quiet):
        def do_POST(self) -> None:
            told.extend(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.reply(200, b"{}")

    with listening(Handler) as url:
        yield url, told


def at_once(folder: Path, url: str) -> Path:
    """Return compose's configuration with one rule of ours that fires at once, for an Alertmanager at url."""
    notes = next(rule["annotations"] for rule in alerts() if rule["alert"] == "ServiceIsDown")
    rule = {"alert": "ServiceIsDown", "expr": "vector(1)", "annotations": {"runbook_url": notes["runbook_url"]}}
    (folder / "rule.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "interval": "1s", "rules": [rule]}]}))
    target = {"static_configs": [{"targets": [url.removeprefix("http://")]}]}
    changed = COMPOSE | {
        "rule_files": [str(folder / "rule.yml")],
        "alerting": COMPOSE["alerting"] | {"alertmanagers": [target]},
        "scrape_configs": [],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(changed))
    return file


@pytest.mark.parametrize(
    ("told", "link"), [("https://wiki.example.com/r", "https://wiki.example.com/r"), ("", RUNBOOKS)]
)
def test_a_receiver_gets_a_link_under_the_address_that_compose_was_told(tmp_path: Path, told: str, link: str) -> None:
    installed("prometheus")
    with receiver() as (url, found), (tmp_path / "log").open("wb") as log:
        command = ["prometheus", f"--config.file={at_once(tmp_path, url)}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        # Alertmanagers are found after the first round of rules, whose alerts then go to nobody.
        command += ["--rules.alert.resend-delay=1s"]
        # What Prometheus 3, which compose runs, does by itself.
        command += ["--enable-feature=expand-external-labels", f"--web.listen-address=127.0.0.1:{free_port()}"]
        process = subprocess.Popen(command, env=os.environ | {"RUNBOOK_BASE_URL": told}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while not found:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait(20)

    assert found[0]["annotations"] == {"runbook_url": f"{link}/ServiceIsDown.md"}
    assert found[0]["labels"] == {"alertname": "ServiceIsDown"}


def test_compose_hands_the_address_over_and_defaults_to_the_pages_in_the_repository() -> None:
    assert variables()["RUNBOOK_BASE_URL"] == RUNBOOKS
    assert services()["prometheus"]["environment"] == {"RUNBOOK_BASE_URL": RUNBOOKS}
    assert COMPOSE["global"]["external_labels"] == {"runbooks": "${RUNBOOK_BASE_URL}"}
    assert f"RUNBOOK_BASE_URL={RUNBOOKS}\n" in EXAMPLE.read_text()
    assert (ROOT / RUNBOOKS / "README.md").is_file()
