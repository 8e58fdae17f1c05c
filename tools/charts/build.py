"""Copies the charts to a folder with their dependencies inside, ready to be installed or packaged from there.

    python -m tools.charts.build dist/charts [--helm helm]

Helm wants the library in each chart, and each chart in the umbrella, in that order; the checkout stays clean. Needs
Helm and the standard library only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["HELM", "BuildError", "build"]

HELM = Path(__file__).parents[2] / "deploy" / "helm"
_UMBRELLA = "modelyard"


class BuildError(Exception):
    """Helm could not put the charts together; the message is what it said."""


def build(target: Path, helm: str | Path) -> Path:
    """Build all charts in a folder that is not there yet, and return it."""
    shutil.copytree(HELM, target, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    charts = [path.parent.name for path in target.glob("*/Chart.yaml")]
    for name in sorted(charts, key=lambda chart: (chart == _UMBRELLA, chart)):
        command = [str(helm), "dependency", "update", "--skip-refresh", str(target / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BuildError(f"{name}: {done.stderr.strip()}")
    return target


def main() -> None:
    """Build for the command line."""
    parser = argparse.ArgumentParser(description="Copy the charts with their dependencies inside.")
    parser.add_argument("target", type=Path, help="a folder that is not there yet")
    parser.add_argument("--helm", default="helm", help="the helm to use, 3 or 4")
    arguments = parser.parse_args()
    try:
        print(build(arguments.target, arguments.helm))
    except (BuildError, OSError) as error:
        sys.exit(f"charts: {error}")


if __name__ == "__main__":
    main()
