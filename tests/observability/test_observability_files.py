"""What is generated is fresh, is there once, and what an editor of its sources gets wrong is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelyard_contracts.durations import duration_s
from pydantic import ValidationError

from tests.compose.definition import EXAMPLE, variables
from tests.observability.expressions import alerts
from tools.observability import slo
from tools.observability.write import DASHBOARDS, RULES, rendered

ROOT = Path(__file__).parents[2]


def test_every_generated_file_is_what_its_source_says() -> None:
    assert {path: path.read_text() for path in rendered()} == rendered()


def test_the_check_names_a_file_that_is_stale(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tools.observability import write; "
        f"write.METRICS = Path({str(ROOT / 'docs/no-such-page.md')!r}); sys.argv = ['write', '--check']; write.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert done.stderr.endswith("run `python -m tools.observability.write`: docs/no-such-page.md\n")


def test_there_is_one_copy_that_chart_and_folder_share() -> None:
    for name, folder in (("dashboards", DASHBOARDS), ("rules", RULES)):
        link = ROOT / "deploy/observability" / name
        assert link.is_symlink()
        assert link.resolve() == folder
    copies = [
        Path(folder, name)
        for folder, _, names in os.walk(ROOT / "deploy")
        for name in names
        if name.endswith(".json") and '"uid": "modelyard-' in Path(folder, name).read_text()
    ]
    assert sorted(copies) == sorted(DASHBOARDS.iterdir())


def test_a_dashboard_fits_into_a_config_map() -> None:
    assert all(file.stat().st_size < 512 * 1024 for file in DASHBOARDS.iterdir())


def objective(**changes: Any) -> dict[str, Any]:
    one = {"name": "a", "title": "A", "promise": "p", "objective": 0.99, "total": ["t"], "bad": ["b"], "minRequests": 1}
    return {"window": "30d", "objectives": [{k: v for k, v in (one | changes).items() if v is not None}]}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (objective(objective=1.0), "objectives.0.objective"),
        (objective(bad=None), "objectives.0"),
        (objective(good=["g"]), "objectives.0"),
        (objective(total=[]), "objectives.0.total"),
        (objective(name="A Name"), "objectives.0.name"),
        (objective(target=1), "objectives.0.target"),
        (objective() | {"window": "1d"}, ""),
        ({"window": "30d", "objectives": []}, "objectives"),
    ],
    ids=["all", "neither", "both", "nothing", "name", "unknown", "window", "empty"],
)
def test_a_wrong_objective_is_refused_with_its_field(tmp_path: Path, document: dict[str, Any], field: str) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(yaml.safe_dump(document))

    with pytest.raises(ValidationError) as refusal:
        slo.load(file)

    assert ".".join(str(part) for part in refusal.value.errors()[0]["loc"]) == field


@pytest.mark.parametrize(
    "good", [None, ["x"], ['x{le="0.1"}', 'y{le="0.25"}']], ids=["no-good", "no-bound", "two-bounds"]
)
def test_an_objective_without_one_bound_promises_no_time(tmp_path: Path, good: list[str] | None) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(yaml.safe_dump(objective(good=good, bad=None if good else ["b"])))
    [one] = slo.load(file).objectives

    with pytest.raises(ValueError, match="a promises no one time"):
        _ = one.within_s


def test_compose_keeps_samples_for_the_whole_window_of_a_budget() -> None:
    kept = duration_s(variables()["PROMETHEUS_RETENTION"])

    assert kept > duration_s(slo.load().window)
    assert f"PROMETHEUS_RETENTION={variables()['PROMETHEUS_RETENTION']}\n" in EXAMPLE.read_text()


def test_the_burn_rates_are_those_of_the_workbook() -> None:
    """A budget of 30 days: 2 % of it in an hour, 5 % in six, 10 % in a day and in three."""
    hours = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}

    spent = {burn.long: burn.rate * hours[burn.long] / (30 * 24) for burn in slo.BURNS}

    assert spent == pytest.approx({"1h": 0.02, "6h": 0.05, "1d": 0.1, "3d": 0.1})


def test_the_page_counts_rightly_and_shows_every_dashboard() -> None:
    text = (ROOT / "docs/observability.md").read_text()

    assert f"Five dashboards, {len({rule['alert'] for rule in alerts()})} alerts" in text
    assert len(list(DASHBOARDS.iterdir())) == 5
    assert re.findall(r"\(images/dashboard-(\w+)\.png\)", text) == [
        "overview",
        "inference",
        "drift",
        "training",
        "health",
    ]
    for burn in slo.BURNS:
        assert f"| {burn.rate:g} |" in text
