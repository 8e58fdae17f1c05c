"""Write a bill of materials for each image: CycloneDX, from the lock that the image is built from.

    python -m tools.ci.sbom build/sbom

uv knows the closure of a member and every hash; what it writes bears the time and a random number, which are replaced,
so that the same lock gives the same bill. What the base image brings is not in it: `make scan-image` looks at that.
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

from tools.ci.workspace import ROOT, closure, members
from tools.images.catalog import IMAGES

__all__ = ["SbomError", "bill", "main"]

TIMEOUT_S = 120


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
    found: dict[str, Any] = json.loads(done.stdout)
    own = {f"modelyard-{member.name}" for member in closure([image], members())}
    for component in (found["metadata"]["component"], *found["components"]):
        if component["name"] in own:
            component["licenses"] = [{"license": {"id": "Apache-2.0"}}]
    del found["metadata"]["timestamp"], found["serialNumber"]
    content = json.dumps(found, sort_keys=True)
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"} | found


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
