"""Three pipelines are one: valid for their servers, made of make targets that exist, with the same gates."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.ci.pipelines import GITLAB, JENKINSFILE, ROOT, WORKFLOW, called, commands, gitlab, jobs, targets

PIPELINES = ("gitlab", "github", "jenkins")
GATES = {"lint", "types", "layers", "generated", "models", "test", "test-slow", "sbom", "scan"}
SETTING_UP = re.compile(r"(sudo )?bash tools/install-[a-z]+-packages\.sh")


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.gitlab-ci", GITLAB),
        ("vendor.github-workflows", (WORKFLOW,)),
        ("custom.github-workflows-require-timeout", (WORKFLOW,)),
    ],
)
def test_a_pipeline_fits_the_schema_of_its_server(schema: str, paths: tuple[str, ...]) -> None:
    transform = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *transform, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_target_that_a_pipeline_calls_is_in_the_makefile(pipeline: str) -> None:
    assert called(pipeline)
    assert called(pipeline) - targets() == set()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_has_all_gates(pipeline: str) -> None:
    assert GATES - called(pipeline) == set()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_runs_nothing_but_make_and_what_sets_up(pipeline: str) -> None:
    others = [line for line in commands(pipeline) if not line.startswith("make ") and not SETTING_UP.fullmatch(line)]

    # A schedule needs the command's own exit code, and make has but one.
    wanted = ['.venv/bin/modelyard train "$MODEL" --wait --reason "schedule, pipeline $CI_PIPELINE_ID"']
    assert others == (wanted if pipeline == "gitlab" else [])


def test_every_image_is_built_by_each_pipeline() -> None:
    assert "images" in called("github") & called("jenkins")
    assert {"image", "push"} <= called("gitlab")


def test_no_job_of_gitlab_bears_a_reserved_name() -> None:
    reserved = {
        "image",
        "services",
        "stages",
        "types",
        "before_script",
        "after_script",
        "variables",
        "cache",
        "include",
    }

    assert set(jobs()) & {*reserved, "pages", "true", "false", "nil"} == set()


def test_an_image_is_scanned_before_it_is_signed_and_signed_before_anything_runs_it() -> None:
    stages: list[str] = gitlab(GITLAB[0])["stages"]
    order = [stages.index(jobs()[name]["stage"]) for name in (".push", "scan-image", "sign", "publish", "bump-dev")]

    assert order == sorted(set(order)), "each in a stage of its own"


def test_a_job_that_reads_digests_gets_the_artifacts_of_all_pushes() -> None:
    # With needs a job has the artifacts of those jobs alone.
    assert [name for name in ("scan-image", "sign", "publish", "bump-dev") if "needs" in jobs()[name]] == []
    assert jobs()[".push"]["artifacts"]["paths"] == ["build/digests"]
    assert jobs()["sbom"]["artifacts"]["paths"] == ["build/sbom"]


def test_a_retraining_that_the_gates_refused_is_a_warning_and_one_that_failed_a_failure() -> None:
    assert jobs()["retrain"]["allow_failure"] == {"exit_codes": [7]}


def test_actions_are_pinned_to_commits_and_may_only_read() -> None:
    text = (ROOT / WORKFLOW).read_text()
    used = re.findall(r"uses: (\S+)", text)

    assert used
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)] == []
    assert "permissions:\n  contents: read\n" in text


def test_where_clusters_are_tested_what_is_missing_is_a_failure() -> None:
    testing = [job for job in jobs().values() if "make test-cluster" in job.get("script", [])]

    assert [job["variables"]["MODELYARD_REQUIRE_CLUSTER"] for job in testing] == ["1"]


def test_jenkins_runs_its_gates_one_after_another_in_one_workspace() -> None:
    # Two makes at once in one workspace would set up the same environment twice.
    assert "parallel" not in (ROOT / JENKINSFILE).read_text()
