"""docs/ci-cd.md names the jobs, commands, codes and variables that there are, and a plan as the registry tells it."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from modelyard_cli.exits import NothingPromoted, RunEndedBadly, exit_code_of
from modelyard_common import errors
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import running
from modelyard_registry.domain.consequences import PARTS
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build

from tests.ci.pipelines import GITLAB, gitlab, jobs
from tests.docs.commands import ROOT, blocks, section

PAGE = "docs/ci-cd.md"
NOBODY = "http://127.0.0.1:9"
BEFORE = """\
apiVersion: modelyard.dev/v1alpha1
kind: ManagedModel
metadata: {name: fares}
spec:
  task: regression
  data: {source: {uri: "dataset://sha256:%s"}, target: fare}
  train: {recipe: {estimator: ridge}}
""" % ("0" * 64)
AFTER = BEFORE.replace("ridge}", "ridge}, seed: 7") + "  gate: [{metric: r2, min: 0.5}]\n  serve: {logPayloads: 0.5}\n"


def modelyard(*words: str, registry: str = NOBODY) -> str:
    command = [str(ROOT / ".venv/bin/modelyard"), "--registry-url", registry, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    upgrade(database, "modelyard_registry")
    settings = RegistrySettings(data_dir=tmp_path, mlflow_url=NOBODY, drift_url=NOBODY, drain_s=0)
    with running(build(settings, database)) as url:
        yield url
    database.close()


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(PAGE, title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_plan_on_the_page_is_what_the_registry_says(registry: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "fares.yaml").write_text(BEFORE)
    modelyard("apply", "--file", str(models), registry=registry)
    (models / "fares.yaml").write_text(AFTER)
    [shown] = blocks(PAGE, "console")
    typed, _, answer = shown.partition("\n")

    words = [word.replace("deploy/argocd/envs/dev/models", str(models)) for word in shlex.split(typed)[2:]]

    assert modelyard(*words, registry=registry) == answer


def test_the_jobs_of_the_page_are_those_of_the_pipeline() -> None:
    named = set(re.findall(r"`([a-z-]+(?::<[a-z]+>)?)`", " ".join(row[1] for row in rows("The way of a change")[1:])))
    there = {
        re.sub(r":.*", lambda found: ":<member>" if "test:" in found.string else ":<service>", name) for name in jobs()
    }

    assert named | {"ci-image"} == {name for name in there if not name.startswith(".")}


def test_the_stages_of_the_page_are_those_of_the_pipeline() -> None:
    named = [stage for row in rows("The way of a change")[1:] if row[0] for stage in row[0].split(", ")]

    assert named == gitlab(GITLAB[0])["stages"]


def test_the_exit_codes_of_the_page_are_those_of_the_command() -> None:
    codes = {int(code) for row in rows("Training by a schedule")[1:] for code in row[0].split(", ")}
    errors_of_it = (RunEndedBadly, NothingPromoted, errors.NotFound, errors.Conflict, errors.Denied, errors.Unavailable)

    assert codes == {0, *(exit_code_of(error()) for error in errors_of_it)}
    assert jobs()["retrain"]["allow_failure"]["exit_codes"] == [exit_code_of(NothingPromoted())]


def test_the_schedule_runs_what_the_page_says() -> None:
    [typed] = re.findall(r"```bash\n(.*?)\n```", section(PAGE, "Training by a schedule"), flags=re.DOTALL)

    assert f".venv/bin/{typed}" in jobs()["retrain"]["script"]


def test_the_parts_of_the_loop_on_the_page_are_those_of_a_plan() -> None:
    table = rows("Models as code")[1:]
    named = {part for row in table for part in re.findall(r"`(\w+)`", row[0])}
    fields = {word for row in table for word in re.findall(r"\w+", row[1])}

    assert named == {part for _, part in PARTS}
    assert {prefix.rpartition(".")[2] for prefix, part in PARTS if part != "rollout"} <= fields


def test_the_variables_of_the_page_are_read_by_somebody() -> None:
    named = {re.findall(r"`(\w+)`", row[0])[0] for row in rows("Setting up GitLab")[1:]}
    places = [*GITLAB, "Makefile", "tools/ci/deliver.py", "cli/src/modelyard_cli/main.py"]
    text = "".join((ROOT / path).read_text() for path in places)

    assert len(named) == 6
    assert {name for name in named if name not in text} == set()


@pytest.mark.parametrize(
    "line", [line for block in blocks(PAGE, "bash") for line in block.splitlines() if line.startswith("modelyard")]
)
def test_a_command_of_the_page_has_its_flags(line: str) -> None:
    words = shlex.split(line)[1:]
    known = modelyard(words[0], "--help")

    assert {word for word in words if word.startswith("--") and word not in known} == set()


def test_the_file_that_the_page_says_is_generated_runs_what_it_says_for_stats() -> None:
    members = yaml.safe_load((ROOT / "deploy/ci/members.yml").read_text())
    images = {
        name for name, job in members.items() if "libs/stats/**/*" in job["rules"][0]["changes"] and "image:" in name
    }

    assert images == {"image:cli", "image:drift", "image:trainer"}
