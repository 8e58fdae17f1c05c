"""Write a bill of materials for each image: CycloneDX, from the lock that the image is built from.

    python -m tools.ci.sbom build/sbom

uv knows the closure of a member and every hash. It lists what any platform gets: what the images' platform does not is
taken out. It writes the time and a random number: they are replaced, so that the same lock gives the same bill. What
the base image brings is not in it: `make scan-image` looks at that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from packaging.markers import Environment, Marker

from tools.ci.workspace import ROOT, closure, members
from tools.images.catalog import IMAGES

__all__ = ["SbomError", "bill", "main"]

TIMEOUT_S = 120
# What PYTHON_IMAGE of the Dockerfile is; the bills are the same for every processor.
PLATFORM: Environment = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}


class SbomError(Exception):
    """uv could not write the bill; the message is what it said."""


def bill(image: str, uv: str) -> dict[str, Any]:
    """Return the bill of materials of an image.

    Raises:
        SbomError: the lock does not fit the members, or uv is too old for the format.
    """
    command = [uv, "export", "--quiet", "--frozen", "--no-dev", "--package", f"modelyard-{image}"]
    command += ["--format", "cyclonedx1.5", "--preview-features", "sbom-export"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise SbomError(f"{image}: {done.stderr.strip()}")
    found = _of_the_platform(json.loads(done.stdout))
    own = {f"modelyard-{member.name}" for member in closure([image], members())}
    for component in (found["metadata"]["component"], *found["components"]):
        if component["name"] in own:
            component["licenses"] = [{"license": {"id": "Apache-2.0"}}]
    del found["metadata"]["timestamp"], found["serialNumber"]
    content = json.dumps(found, sort_keys=True)
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"} | found


def _of_the_platform(found: dict[str, Any]) -> dict[str, Any]:
    """Return a bill without what other platforms get."""
    kept = [one for one in found["components"] if _is_installed(one)]
    references = {one["bom-ref"] for one in (found["metadata"]["component"], *kept)}
    edges = [edge for edge in found["dependencies"] if edge["ref"] in references]
    for edge in edges:
        if "dependsOn" in edge:
            edge["dependsOn"] = [reference for reference in edge["dependsOn"] if reference in references]
    return found | {"components": kept, "dependencies": edges}


def _is_installed(component: dict[str, Any]) -> bool:
    properties = {one["name"]: one["value"] for one in component.get("properties", [])}
    marker = properties.get("uv:package:marker")
    return marker is None or Marker(marker).evaluate(PLATFORM)


def main(words: list[str] | None = None) -> None:
    """Write all bills into a folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.ci.sbom", description="Write the bills of materials.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--uv", default=shutil.which("uv") or str(ROOT / ".tools/bin/uv"))
    told = parser.parse_args(words)
    told.folder.mkdir(parents=True, exist_ok=True)
    try:
        for image in IMAGES:
            found = bill(image, told.uv)
            (told.folder / f"{image}.cdx.json").write_text(json.dumps(found, indent=2) + "\n")
            print(f"{image}: {len(found['components'])} components")
    except (SbomError, OSError) as error:
        sys.exit(f"sbom: {error}")


if __name__ == "__main__":
    main()
