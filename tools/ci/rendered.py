"""What an environment's services are on the cluster, as text: so that a promotion is read as what it changes there.

    python -m tools.ci.rendered staging

Rendered as Argo CD does it: each service's chart with common.yaml, <service>.yaml and then the release.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tools import kube_tools
from tools.charts.build import BuildError, build
from tools.release import ENVIRONMENTS

__all__ = ["RenderError", "rendered"]

# What Argo CD would ask of the cluster.
KUBERNETES = "1.35.0"


class RenderError(Exception):
    """Helm refused a service; the message is what it said."""


def rendered(environment: str, environments: Path = ENVIRONMENTS) -> dict[str, str]:
    """Return the manifests of an environment, by service.

    Raises:
        RenderError: there is no such environment, or a chart refuses its values.
    """
    folder = environments / environment
    if not (folder / "release.yaml").is_file():
        raise RenderError(f"there is no environment {environment!r}")
    helm = kube_tools.ensure().helm4
    with tempfile.TemporaryDirectory(prefix="modelyard-rendered-") as scratch:
        charts = build(Path(scratch) / "charts", helm)
        release = Path(scratch) / "release.yaml"
        found = {}
        for entry in yaml.safe_load((folder / "release.yaml").read_text()):
            release.write_text(yaml.safe_dump(entry["values"]))
            service = entry["service"]
            values = (folder / "common.yaml", folder / f"{service}.yaml", release)
            command = [str(helm), "template", f"modelyard-{service}", str(charts / service)]
            command += ["--namespace", f"modelyard-{environment}", "--kube-version", KUBERNETES, "--include-crds"]
            found[service] = _answer([*command, *(f"--values={path}" for path in values)])
    return found


def _answer(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RenderError(done.stderr.strip())
    return done.stdout


def main() -> None:
    """Print an environment."""
    parser = argparse.ArgumentParser(prog="python -m tools.ci.rendered", description="Print what an environment is.")
    parser.add_argument("environment")
    try:
        for text in rendered(parser.parse_args().environment).values():
            print(text)
    except (RenderError, BuildError, kube_tools.KubeToolsError) as error:
        sys.exit(f"rendered: {error}")


if __name__ == "__main__":
    main()
