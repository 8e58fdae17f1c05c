"""Every alert fires when it should and stays calm when it should, by promtool; and every one has a page that helps."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.alert_case import Case
from tests.observability.alert_cases import CASES
from tests.observability.expressions import alerts, rules, selectors
from tools.observability.alerts import RUNBOOK_BASE, RUNBOOKS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/runbooks"
NAMES = sorted({rule["alert"] for rule in alerts()})


def rules_of(alert: str) -> dict[str, Any]:
    """Return the rules of an alert and what they read of recording rules: all others would only take time."""
    own = [rule for rule in alerts() if rule["alert"] == alert]
    read = {selector.text for rule in own for selector in selectors(rule["expr"])}
    names = {text.partition("{")[0] for text in read}
    slos = {rule["labels"]["slo"] for rule in own if "slo" in rule["labels"]}
    recording = [
        rule for rule in rules() if rule.get("record") in names and (not slos or rule["labels"]["slo"] in slos)
    ]
    return {"groups": [{"name": "recording", "rules": recording}, {"name": "alerts", "rules": own}]}


def judged(promtool: str, folder: Path, case: Case, series: Mapping[str, str], *, fires: bool, base: str = "") -> str:
    """Return what promtool complains of: nothing, when the alert does what is expected of it.

    Args:
        base: the address of the pages, where Prometheus was told one.
    """
    said = {
        "summary": case.summary,
        "description": case.description,
        "runbook_url": f"{base or RUNBOOKS}/{case.alert}.md",
    }
    expected = {"exp_labels": {**case.labels, **case.extra, "severity": case.severity}, "exp_annotations": said}
    subset = folder / "rules.yaml"
    subset.write_text(yaml.safe_dump(rules_of(case.alert)))
    document = {
        "rule_files": [str(subset)],
        "evaluation_interval": "1m",
        # Else by chance, and an alert would sometimes see what was recorded a minute before.
        "group_eval_order": ["recording", "alerts"],
        "tests": [
            {
                "interval": "1m",
                "external_labels": {"runbooks": base} if base else {},
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [expected] if fires else []}
                ],
            }
        ],
    }
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_alert_fires_and_says_what_is_wrong(promtool: str, tmp_path: Path, case: Case) -> None:
    assert judged(promtool, tmp_path, case, case.series, fires=True) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_alert_stays_calm_when_there_is_nothing_to_do(promtool: str, tmp_path: Path, case: Case) -> None:
    assert case.calm
    for change in case.calm:
        assert judged(promtool, tmp_path, case, {**case.series, **change}, fires=False) == "", change


def test_a_link_leads_where_the_installation_keeps_its_pages(promtool: str, tmp_path: Path) -> None:
    case = CASES[-1]
    base = "https://wiki.example.com/runbooks"

    assert judged(promtool, tmp_path, case, case.series, fires=True, base=base) == ""


def test_a_case_that_expects_the_wrong_thing_fails(promtool: str, tmp_path: Path) -> None:
    """Promtool is asked for real: an alert that should fire and does not is a complaint, and the other way round."""
    case = CASES[-1]

    assert "FAILED" in judged(promtool, tmp_path, case, case.series, fires=False)
    assert "FAILED" in judged(promtool, tmp_path, case, {**case.series, **case.calm[0]}, fires=True)


def test_every_alert_has_a_case() -> None:
    rules = Counter((rule["alert"], rule["labels"].get("long", "")) for rule in alerts())

    assert {(case.alert, case.extra.get("long", "")) for case in CASES} == set(rules)
    assert set(rules.values()) == {1}
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_severity_and_a_page_of_its_name(name: str) -> None:
    for rule in (rule for rule in alerts() if rule["alert"] == name):
        notes: dict[str, Any] = rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert notes["summary"]
        assert notes["description"].endswith(".")
        assert notes["runbook_url"] == f"{RUNBOOK_BASE}/{name}.md"
        text = (PAGES / f"{name}.md").read_text()
        assert text.splitlines()[0] == f"# {name}"
        assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == [
            "What it means",
            "What to look at",
            "What to do",
        ]


def test_there_is_no_page_without_an_alert_and_the_index_lists_all() -> None:
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    listed = re.findall(r"\]\((\w+)\.md\)", (PAGES / "README.md").read_text())

    assert pages == set(NAMES)
    assert sorted(listed) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_page_names_only_metrics_that_there_are(name: str) -> None:
    from tests.observability.test_observability_metrics import known

    text = (PAGES / f"{name}.md").read_text()
    named = {
        re.sub(r"_(bucket|sum|count)$", "", one) if one not in known() else one
        for one in re.findall(r"`(modelyard_\w+)", text)
    }

    assert named <= set(known())
