"""Prints every image that an installation pulls, for a mirror or an air gap: what Helm renders, the jobs' image too.

    python -m tools.charts.images [--values values.yaml …] [--set KEY=VALUE …] [--helm helm]

Without values it is the union over all profiles. Training makes its Jobs itself, so their image stands in an
environment variable and in no pod. Give the values that you install with: an image that they name is printed too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.charts.build import HELM, BuildError, build

__all__ = ["images", "main"]

_PROFILES = HELM / "modelyard" / "profiles"
# A profile may leave a value to the installer; none of these names an image.
_LEFT_OPEN = ("mlflow.artifacts=s3://bucket/prefix", "observability.enabled=true")
_JOB_IMAGE = "MODELYARD_TRAINING_JOB_IMAGE"
_TIMEOUT_S = 60


def images(charts: Path, helm: str | Path, values: Sequence[Path] = (), assignments: Sequence[str] = ()) -> list[str]:
    """Return the images of the umbrella with some values, sorted.

    Args:
        charts: the folder that ``tools.charts.build`` made.
        helm: the helm to use, 3 or 4.
        values: files; without any, each profile by itself.
        assignments: ``key=value``, as Helm's ``--set`` takes them.

    Raises:
        BuildError: Helm refused; the message is what it said.
    """
    layers = [list(values)] if values else [[profile] for profile in sorted(_PROFILES.glob("*.yaml"))]
    found: set[str] = set()
    for layer in layers:
        found.update(_images_of(_rendered(charts, helm, layer, [*_LEFT_OPEN, *assignments])))
    return sorted(found)


def _rendered(charts: Path, helm: str | Path, values: Sequence[Path], assignments: Sequence[str]) -> str:
    command = [str(helm), "template", "modelyard", str(charts / "modelyard"), "--namespace", "ml"]
    command += [word for path in values for word in ("--values", str(path))]
    command += [word for one in assignments for word in ("--set", one)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise BuildError(done.stderr.strip())
    return done.stdout


def _images_of(text: str) -> Iterator[str]:
    for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        # The definition of ManagedModel describes fields; it runs nothing.
        if document is not None and document["kind"] != "CustomResourceDefinition":
            yield from _images_in(document)


def _images_in(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _images_in(item)
    elif isinstance(node, dict):
        if isinstance(node.get("image"), str):
            yield node["image"]
        if node.get("name") == _JOB_IMAGE:
            yield node["value"]
        for item in node.values():
            yield from _images_in(item)


def main(words: list[str] | None = None) -> None:
    """Print an image a line."""
    parser = argparse.ArgumentParser(prog="python -m tools.charts.images", description="Print what is pulled.")
    parser.add_argument(
        "--values", type=Path, action="append", default=[], help="as for helm install; default: all profiles"
    )
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE")
    parser.add_argument("--helm", default="helm", help="the helm to use, 3 or 4")
    told = parser.parse_args(words)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            charts = build(Path(scratch) / "charts", told.helm)
            print("\n".join(images(charts, told.helm, told.values, told.assignments)))
    except (BuildError, OSError) as error:
        sys.exit(f"images: {error}")


if __name__ == "__main__":
    main()
