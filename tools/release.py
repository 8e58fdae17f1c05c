"""Decides what runs in an environment, by digest: one file, `deploy/argocd/envs/<environment>/release.yaml`.

    python -m tools.release pin dev registry=sha256:… trainer=sha256:…     # CI, after it has published images
    python -m tools.release promote dev staging                            # the same digests, to the next one

Digests are what was tested; a tag can mean something else tomorrow. Nothing is built, pushed or deployed here: what
this writes is reviewed and merged, and Argo CD does the rest.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ReleaseError", "pin", "promote"]

ENVIRONMENTS = Path(__file__).resolve().parents[1] / "deploy/argocd/envs"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
UNPUBLISHED = "sha256:" + "0" * 64
# Whose values hold an image's digest, and where; every other image is its service's own.
ELSEWHERE = {
    "trainer": ("training", ("jobs", "image")),
    "inference-runtime": ("inference", ("runtime", "image")),
}
HEADER = """\
# What runs here: each service with the digests of its images. Written by `python -m tools.release`: CI pins what it has
# published, and a promotion copies the digests as they are to the next environment. Zeros: nothing is published yet.
"""

Release = list[dict[str, Any]]


class ReleaseError(Exception):
    """The release cannot be written; the message says what to mend."""


def pin(environments: Path, environment: str, digests: Mapping[str, str]) -> None:
    """Set the digests of images in an environment, and leave its other images alone.

    Raises:
        ReleaseError: there is no such environment or image, or a digest is none.
    """
    release = _read(environments, environment)
    places = _places(release)
    for image, digest in digests.items():
        if image not in places:
            raise ReleaseError(f"{environment} runs no image {image!r}; it runs {', '.join(sorted(places))}")
        if not DIGEST.fullmatch(digest) or digest == UNPUBLISHED:
            raise ReleaseError(f"{image}={digest} is no digest of an image: sha256: and 64 hexadecimal digits")
        places[image]["digest"] = digest
    _write(environments, environment, release)


def promote(environments: Path, source: str, target: str) -> None:
    """Give an environment the digests of another; which services it runs stays its own.

    Raises:
        ReleaseError: there is no such environment, or the first has not got every image of the second.
    """
    digests = {image: place["digest"] for image, place in _places(_read(environments, source)).items()}
    release = _read(environments, target)
    places = _places(release)
    unknown = sorted(image for image in places if digests.get(image, UNPUBLISHED) == UNPUBLISHED)
    if unknown:
        raise ReleaseError(f"{source} has no published {', '.join(unknown)}: pin them there first")
    for image, place in places.items():
        place["digest"] = digests[image]
    _write(environments, target, release)


def _places(release: Release) -> dict[str, dict[str, str]]:
    """Return the parts of a release that hold a digest, by image."""
    found = {}
    for entry in release:
        if "image" in entry["values"]:
            found[entry["service"]] = entry["values"]["image"]
        for image, (service, path) in ELSEWHERE.items():
            if entry["service"] == service:
                here = entry["values"]
                for key in path:
                    here = here[key]
                found[image] = here
    return found


def _read(environments: Path, environment: str) -> Release:
    path = environments / environment / "release.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.parent.name for one in environments.glob("*/release.yaml")))
        raise ReleaseError(f"there is no environment {environment!r}; there is {known}")
    release: Release = yaml.safe_load(path.read_text())
    return release


def _write(environments: Path, environment: str, release: Release) -> None:
    text = HEADER + yaml.safe_dump(release, sort_keys=False)
    path = environments / environment / "release.yaml"
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


def _assignment(text: str) -> tuple[str, str]:
    image, equals, digest = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not IMAGE=DIGEST")
    return image, digest


def main(words: list[str] | None = None, environments: Path = ENVIRONMENTS) -> None:
    """Pin or promote for the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description="Decide what runs, by digest.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    pinning = verbs.add_parser("pin", help="set the digests of images in an environment")
    pinning.add_argument("environment")
    pinning.add_argument("digests", nargs="+", type=_assignment, metavar="IMAGE=DIGEST")
    promoting = verbs.add_parser("promote", help="give an environment the digests of another")
    promoting.add_argument("source")
    promoting.add_argument("target")
    told = parser.parse_args(words)
    try:
        if told.verb == "pin":
            pin(environments, told.environment, dict(told.digests))
        else:
            promote(environments, told.source, told.target)
    except ReleaseError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    main()
