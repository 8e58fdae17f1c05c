"""Writes what the profiles render to, for review: ``python -m tests.chart.goldens``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.chart.rendering import GOLDENS, Helm, golden, umbrella
from tools import kube_tools
from tools.charts.build import build

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        binary = kube_tools.ensure().helm4
        helm = Helm(binary, build(Path(folder) / "charts", binary), Path(folder))
        for profile in ("small", "ha", "ci"):
            (GOLDENS / f"{profile}.yaml").write_text(golden(umbrella(helm, profile, "plain")))
