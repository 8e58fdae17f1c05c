"""Every image has a bill of materials: CycloneDX, complete by the lock, the same for the same lock."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from tests.ci.pipelines import ROOT
from tools.ci import sbom
from tools.ci.workspace import closure, members
from tools.images.catalog import IMAGES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    command = ["make", "--silent", "-o", ".venv/.ready", "sbom"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    for path in (ROOT / "build/sbom").glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def bill(folder: Path, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{image}.cdx.json").read_text())
    return found


def installed(image: str) -> set[tuple[str, str]]:
    """Return what `uv sync` would put into an image: the requirements whose markers hold on its platform."""
    command = [uv(), "export", "--quiet", "--frozen", "--no-dev", "--no-hashes", "--no-annotate", "--no-header"]
    command += ["--package", f"modelyard-{image}", "--no-emit-workspace"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    lines = [Requirement(line) for line in text.splitlines()]
    kept = [line for line in lines if line.marker is None or line.marker.evaluate({**sbom.PLATFORM})]
    return {(line.name, str(line.specifier).removeprefix("==")) for line in kept}


def installed_members(image: str) -> set[str]:
    """Return the members that go into an image: as the Dockerfile asks for them, without what extras would add."""
    command = [uv(), "export", "--quiet", "--frozen", "--no-dev", "--no-header", "--no-annotate", "--no-editable"]
    command += ["--package", f"modelyard-{image}", "--only-emit-workspace"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    folders = {member.folder: member.name for member in members().values()}
    return {folders[line.removeprefix("./")] for line in lines}


def uv() -> str:
    here = ROOT / ".tools/bin/uv"
    return str(here) if here.exists() else "uv"


@pytest.mark.parametrize("image", list(IMAGES))
def test_a_bill_is_valid_cyclonedx(folder: Path, image: str) -> None:
    text = (folder / f"{image}.cdx.json").read_text()

    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None


@pytest.mark.parametrize("image", list(IMAGES))
def test_a_bill_names_everything_that_the_lock_gives_the_image(folder: Path, image: str) -> None:
    found = bill(folder, image)
    components = [found["metadata"]["component"], *found["components"]]
    ours = {one["name"].removeprefix("modelyard-") for one in components if one["name"].startswith("modelyard-")}
    others = {(one["name"], one["version"]) for one in components if not one["name"].startswith("modelyard-")}

    assert others == installed(image)
    assert ours == installed_members(image) <= {member.name for member in closure([image], members())}
    assert found["metadata"]["component"]["name"] == f"modelyard-{image}"


def test_dependencies_in_a_bill_lead_to_its_components(folder: Path) -> None:
    found = bill(folder, "trainer")
    references = {one["bom-ref"] for one in [found["metadata"]["component"], *found["components"]]}

    assert {edge["ref"] for edge in found["dependencies"]} == references
    assert {one for edge in found["dependencies"] for one in edge.get("dependsOn", [])} < references


def test_the_platform_of_the_bills_is_that_of_the_images() -> None:
    [version] = re.findall(r"^ARG PYTHON_IMAGE=python:([\d.]+)-", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)

    assert sbom.PLATFORM["python_version"] == version


def test_what_comes_from_outside_has_its_hashes_and_what_is_ours_its_licence(folder: Path) -> None:
    components = bill(folder, "trainer")["components"]
    ours = [one for one in components if one["name"].startswith("modelyard-")]
    others = [one for one in components if one not in ours]

    assert {one["licenses"][0]["license"]["id"] for one in ours} == {"Apache-2.0"}
    assert len(others) > 50
    for one in others:
        hashes = [part for where in one["externalReferences"] for part in where["hashes"]]
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}", part["content"]) for part in hashes), one["name"]
        assert one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}"


def test_the_same_lock_gives_the_same_bill(folder: Path) -> None:
    assert sbom.bill("registry", uv()) == bill(folder, "registry")


def test_an_image_that_the_lock_does_not_know_is_said() -> None:
    with pytest.raises(sbom.SbomError, match="nothere"):
        sbom.bill("nothere", uv())
