"""The way of an image from the build to the clusters: pushed, scanned, signed by digest, and only then published.

    python -m tools.ci.supply push registry      # docker push to $CI_IMAGES; notes the digest in build/digests/registry
    python -m tools.ci.supply scan registry      # trivy: what the base image and the wheels bring
    python -m tools.ci.supply sign registry      # cosign: a signature, and the bill of materials attested to the digest
    python -m tools.ci.supply publish registry   # cosign copy to $RELEASE_IMAGES: image, signature and attestation
    python -m tools.ci.supply charts             # helm push of every chart to $RELEASE_CHARTS

What clusters pull from holds nothing that was not scanned and signed. Every step after the push names the digest: a tag
can mean something else by then. Steps that are given no image take all that were pushed in this pipeline.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools import kube_tools
from tools.charts.build import BuildError, build
from tools.ci.workspace import ROOT
from tools.images.catalog import IMAGES

__all__ = ["SupplyError", "digests", "main"]

BUILD = ROOT / "build"
TIMEOUT_S = 1800
REFERENCE = re.compile(r"(?P<repository>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")


class SupplyError(Exception):
    """A step failed; the message says which and why."""


def digests(folder: Path) -> dict[str, str]:
    """Return the references that images were pushed under, by image: ``registry.example.com/ci/drift@sha256:…``."""
    found = {path.name: path.read_text().strip() for path in sorted((folder / "digests").glob("*"))}
    for image, reference in found.items():
        if not REFERENCE.fullmatch(reference):
            raise SupplyError(f"{folder / 'digests' / image} holds {reference!r}, which is no image by digest")
    return found


def push(image: str, folder: Path) -> None:
    """Push a built image, and note its digest as the registry tells it."""
    target = f"{_setting('CI_IMAGES')}/{image}"
    tag = f"{target}:{_setting('CI_COMMIT_SHA')}"
    _run("docker", "tag", IMAGES[image].tag(), tag)
    _run("docker", "push", "--quiet", tag)
    known = _run("docker", "image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', tag).split()
    [reference] = [name for name in known if name.startswith(f"{target}@")]
    (folder / "digests").mkdir(parents=True, exist_ok=True)
    (folder / "digests" / image).write_text(f"{reference}\n")


def scan(image: str, folder: Path) -> None:
    """Fail for a known vulnerability that is high or critical and has a fix."""
    options = ("--exit-code", "1", "--severity", "HIGH,CRITICAL", "--ignore-unfixed", "--scanners", "vuln")
    _run("trivy", "image", *options, digests(folder)[image])


def sign(image: str, folder: Path) -> None:
    """Sign the digest, and attest the bill of materials to it."""
    reference = digests(folder)[image]
    predicate = folder / "sbom" / f"{image}.cdx.json"
    if not predicate.is_file():
        raise SupplyError(f"there is no {predicate}; `make sbom` writes it")
    _run("cosign", "sign", "--yes", reference)
    _run("cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", str(predicate), reference)


def publish(image: str, folder: Path) -> None:
    """Copy the image with what is attached to it to where clusters pull from; its digest stays."""
    reference = digests(folder)[image]
    version = os.environ.get("CI_COMMIT_TAG") or _setting("CI_COMMIT_SHA")
    _run("cosign", "copy", "--force", reference, f"{_setting('RELEASE_IMAGES')}/{image}:{version}")


def push_charts() -> None:
    """Package every chart with its dependencies, and push it."""
    helm, target = kube_tools.ensure().helm4, _setting("RELEASE_CHARTS")
    with tempfile.TemporaryDirectory(prefix="modelyard-charts-") as scratch:
        charts = build(Path(scratch) / "charts", helm)
        for chart in sorted(path.parent for path in charts.glob("*/Chart.yaml")):
            _run(str(helm), "package", str(chart), "--destination", scratch)
        for package in sorted(Path(scratch).glob("*.tgz")):
            _run(str(helm), "push", str(package), f"oci://{target}")


STEPS: dict[str, Callable[[str, Path], None]] = {"push": push, "scan": scan, "sign": sign, "publish": publish}


def _setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise SupplyError(f"{name} is not set; .gitlab-ci.yml sets it")
    return value.removesuffix("/")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError as exc:
        raise SupplyError(f"there is no {command[0]} here") from exc
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SupplyError(
            f"{' '.join(command[:3])} … failed ({done.returncode}): {(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout


def main(words: list[str] | None = None, folder: Path = BUILD) -> None:
    """Carry out one step."""
    parser = argparse.ArgumentParser(prog="python -m tools.ci.supply", description="From the build to the clusters.")
    parser.add_argument("step", choices=[*STEPS, "charts"])
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="default: all that were pushed in this pipeline")
    told = parser.parse_args(words)
    try:
        if unknown := [image for image in told.images if image not in IMAGES]:
            raise SupplyError(f"there is no image {', '.join(unknown)}; there are {', '.join(IMAGES)}")
        if told.step == "charts":
            push_charts()
            return
        for image in told.images or digests(folder):
            STEPS[told.step](image, folder)
    except (SupplyError, BuildError, kube_tools.KubeToolsError, subprocess.TimeoutExpired) as error:
        sys.exit(f"{told.step}: {error}")


if __name__ == "__main__":
    main()
