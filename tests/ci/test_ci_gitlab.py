"""GitLab's pipeline for real: which jobs each kind of pipeline has, and the jobs themselves by a shell executor."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.ci.checkout import MERGE_REQUEST, SCHEDULE, TAG, Checkout
from tests.ci.test_ci_scan import osv

pytestmark = pytest.mark.timeout(300, func_only=True)
"""Whichever test comes first waits for npm, which may take longer than a test may."""

CHECKS = {"lint", "type-check", "layers", "generated", "models"}
SUPPLY = {"sbom", "scan"}
PROMOTIONS = {"promote-staging", "promote-production"}
ON_MAIN = {"test", "test-slow", "scan-image", "sign", "publish", "bump-dev"}


def test_a_merge_of_documents_runs_every_gate_and_makes_no_image(checkout: Checkout) -> None:
    checkout.on_main()

    jobs = checkout.jobs({})

    assert set(jobs) == CHECKS | SUPPLY | ON_MAIN | PROMOTIONS
    assert {name for name, row in jobs.items() if row["when"] == "manual"} == PROMOTIONS


def test_a_runner_that_may_start_containers_tests_the_cluster_too(checkout: Checkout) -> None:
    checkout.on_main()

    assert "test-cluster" in checkout.jobs({"PRIVILEGED_RUNNER": "big"})


def test_a_merge_request_delivers_nothing(checkout: Checkout) -> None:
    checkout.change("services/registry/src/x.py")

    jobs = checkout.jobs(MERGE_REQUEST)

    assert CHECKS | SUPPLY | {"test-whole", "test-charts", "test:registry", "image:registry"} <= set(jobs)
    assert set(jobs) & (ON_MAIN | PROMOTIONS) == set()
    assert jobs["scan"]["allowFailure"] == "true"


def test_a_merge_request_that_changes_a_manifest_is_planned_in_every_environment(checkout: Checkout) -> None:
    checkout.change("deploy/argocd/envs/dev/models/electricity.yaml")
    planned = {name for name in checkout.jobs(MERGE_REQUEST) if name.startswith("models-plan")}
    checkout.change("deploy/argocd/envs/dev/common.yaml")
    others = {name for name in checkout.jobs(MERGE_REQUEST) if name.startswith("models-plan")}

    assert planned == {f"models-plan: [{environment}]" for environment in ("dev", "staging", "production")}
    assert others == set()


def test_what_a_bump_changes_makes_no_image_so_that_it_causes_no_other_bump(checkout: Checkout) -> None:
    checkout.change("deploy/argocd/envs/dev/release.yaml")

    jobs = checkout.jobs({"CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"})

    assert "bump-dev" in jobs
    assert not any(name.startswith("push:") for name in jobs)


def test_a_merge_of_a_service_pushes_its_image(checkout: Checkout) -> None:
    checkout.change("services/registry/src/x.py")

    jobs = checkout.jobs({"CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"})

    # The command's `embedded` extra runs the services.
    assert {name for name in jobs if name.startswith("push:")} == {"push:registry", "push:cli"}


def test_a_schedule_trains_the_model_that_it_names_and_does_nothing_else(checkout: Checkout) -> None:
    checkout.on_main()

    assert set(checkout.jobs(SCHEDULE | {"MODEL": "electricity"})) == {"retrain"}


def test_a_tag_publishes_the_charts(checkout: Checkout) -> None:
    checkout.on_main()
    checkout.git("tag", "--force", "v1.0.0")

    jobs = checkout.jobs(TAG)

    assert "publish-charts" in jobs
    assert set(jobs) & {"bump-dev", "publish", *PROMOTIONS} == set()


needs_rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="gitlab-ci-local copies the checkout with rsync")


@needs_rsync
@pytest.mark.parametrize(
    ("job", "target"),
    [
        ("lint", "lint"),
        ("layers", "layers"),
        ("generated", "generated"),
        ("models", "models"),
        ("sbom", "sbom"),
        # Without a cache mypy takes a minute.
        pytest.param("type-check", "types", marks=pytest.mark.slow),
    ],
)
def test_a_job_runs_as_the_runner_would_run_it(checkout: Checkout, job: str, target: str) -> None:
    checkout.on_main()

    done = checkout.ci(job, "--force-shell-executor", "--no-color")

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{job} $ make {target}" in " ".join(done.stdout.split())


@needs_rsync
@pytest.mark.parametrize(
    ("known", "variables", "fails"),
    [
        ({}, {}, False),
        ({"starlette": "99.0.0"}, {}, True),
        # What was found out today is not the fault of this change.
        ({"starlette": "99.0.0"}, MERGE_REQUEST, False),
    ],
    ids=["nothing-known", "stops-what-is-merged", "is-shown-on-a-merge-request"],
)
def test_the_scan_runs_as_the_runner_would_run_it(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, known: dict[str, str], variables: dict[str, str], fails: bool
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    checkout.change("docs/x.md") if variables else checkout.on_main()

    with osv(known) as database:
        told = variables | {"OSV_URL": database.url}
        done = checkout.ci("scan", "--force-shell-executor", "--no-color", variables=told)

    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "scan $ make scan" in " ".join(done.stdout.split())
    assert len(database.asked) > 100
    assert ("PYSEC-2026-1" in done.stdout) == bool(known)


@needs_rsync
@pytest.mark.slow
@pytest.mark.timeout(480)
def test_the_tests_of_a_member_run_as_the_runner_would_run_them(checkout: Checkout) -> None:
    checkout.change("libs/contracts/x.py")

    done = checkout.ci("test:contracts", "--force-shell-executor", "--no-color", variables=MERGE_REQUEST, timeout_s=400)

    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "test:contracts $ bash tools/install-test-packages.sh" in said
    assert "test:contracts $ make test-member" in said
    assert re.search(r"\d\d+ passed", said)


@needs_rsync
def test_a_job_fails_when_its_gate_does(checkout: Checkout) -> None:
    checkout.change("docs/x.md")
    wrong = checkout.folder / "examples/wrong/model.yaml"
    wrong.parent.mkdir()
    wrong.write_text("kind: ManagedModel\n")
    checkout.commit()

    done = checkout.ci("models", "--force-shell-executor", "--no-color")

    assert done.returncode != 0
    assert "examples/wrong/model.yaml is not a manifest that can be applied" in done.stdout + done.stderr
