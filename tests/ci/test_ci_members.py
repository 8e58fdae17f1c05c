"""Path-aware jobs: a change runs all that is built from it and nothing else. Held to the lock, not to the generator."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.ci.checkout import MERGE_REQUEST, Checkout
from tests.ci.pipelines import ROOT, gitlab
from tools.ci import __main__ as generator
from tools.ci import workspace
from tools.ci.workspace import members
from tools.images.build import INPUTS
from tools.images.catalog import IMAGES

pytestmark = pytest.mark.timeout(300, func_only=True)
"""Whichever test comes first waits for npm, which may take longer than a test may."""

EVERYWHERE = {"Makefile", "pyproject.toml", "uv.lock"}
IMAGE_SOURCES = {"Dockerfile", ".dockerignore", "tools/images/**/*"}


def locked() -> dict[str, set[str]]:
    """Return what each member is built from, itself included, as the lock has it."""
    packages = {one["name"]: one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    own = {name for name, one in packages.items() if "editable" in one["source"]}

    def below(name: str) -> set[str]:
        lines = list(packages[name].get("dependencies", []))
        for extra in packages[name].get("optional-dependencies", {}).values():
            lines += extra
        direct = {line["name"] for line in lines} & own - {name}
        return {name}.union(*(below(one) for one in direct))

    return {name.removeprefix("modelyard-"): {one.removeprefix("modelyard-") for one in below(name)} for name in own}


def folders(names: set[str]) -> set[str]:
    found = (
        path.parent.relative_to(ROOT) for pattern in ("*", "*/*") for path in ROOT.glob(f"{pattern}/pyproject.toml")
    )
    return {f"{folder}/**/*" for folder in found if folder.name in names}


def changes(job: str) -> set[str]:
    [rule] = gitlab("deploy/ci/members.yml")[job]["rules"]
    return set(rule["changes"])


def test_the_graph_of_the_workspace_is_that_of_the_lock() -> None:
    assert set(members()) == set(locked())
    assert len(members()) == 13


@pytest.mark.parametrize("image", list(IMAGES))
def test_an_image_is_made_anew_for_its_member_and_every_library_that_it_is_built_from(image: str) -> None:
    expected = folders(locked()[image]) | EVERYWHERE | IMAGE_SOURCES

    assert changes(f"image:{image}") == changes(f"push:{image}") == expected


@pytest.mark.parametrize("name", sorted(members()))
def test_a_members_tests_run_for_all_that_they_are_made_of(name: str) -> None:
    known = locked()
    expected = set[str]().union(*(known[one] for one in workspace.tested_with(members()[name], members())))

    assert changes(f"test:{name}") == folders(expected) | EVERYWHERE
    assert known[name] <= expected


def test_the_sources_of_images_are_those_that_the_build_is_stamped_with() -> None:
    of_members = {"libs", "services", "cli"}
    globs = {path.removesuffix("/**/*") for path in EVERYWHERE | IMAGE_SOURCES}

    assert {
        path for path in INPUTS if path not in of_members and not any(path.startswith(glob) for glob in globs)
    } == set()


def test_a_stale_file_is_found_and_written_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(generator, "FILE", tmp_path / "members.yml")

    with pytest.raises(SystemExit, match=r"stale: members\.yml"):
        generator.main(["--check"])
    generator.main([])
    generator.main(["--check"])

    assert (tmp_path / "members.yml").read_text() == (ROOT / "deploy/ci/members.yml").read_text()


@pytest.mark.parametrize(
    ("path", "tests", "images"),
    [
        ("libs/stats/x.py", {"stats", "client", "drift", "trainer", "cli"}, {"drift", "trainer", "cli"}),
        ("libs/contracts/x.py", set(members()) - {"stats"}, set(IMAGES)),
        ("services/operator/src/x.py", {"operator"}, {"operator"}),
        ("uv.lock", set(members()), set(IMAGES)),
        ("Dockerfile", set(), set(IMAGES)),
        ("docs/x.md", set(), set()),
    ],
)
def test_gitlab_runs_for_a_merge_request_what_its_change_is_in(
    checkout: Checkout, path: str, tests: set[str], images: set[str]
) -> None:
    checkout.change(path)

    jobs = checkout.jobs(MERGE_REQUEST)

    assert {name.removeprefix("test:") for name in jobs if name.startswith("test:")} == tests
    assert {name.removeprefix("image:") for name in jobs if name.startswith("image:")} == images
    assert not any(name.startswith("push:") for name in jobs)
