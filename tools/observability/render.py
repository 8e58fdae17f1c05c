"""Draws dashboards with real data, for a look at them where there is no Grafana.

    python -m tools.observability.render docs/images                        # runs a slice of the demo for it
    python -m tools.observability.render docs/images --prometheus http://127.0.0.1:8087 --minutes 30

It draws what the JSON says: positions, units, thresholds, words, annotations; not every pixel as Grafana does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from tools.observability.drawing import draw, note_annotations
from tools.observability.stage import Prometheus, StageError, observed_demo
from tools.observability.write import DASHBOARDS

__all__ = ["render"]

_BEFORE_S = 20.0
_UNIT_IN = 0.62
_HEADER_IN = 0.75
_WIDTH_IN = 18.0


def render(document: dict[str, Any], prometheus: Prometheus, target: Path) -> None:
    """Draw one dashboard to a PNG file."""
    panels = document["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    height = rows * _UNIT_IN * 0.62 + _HEADER_IN
    figure = plt.figure(figsize=(_WIDTH_IN, height), dpi=70, facecolor="#f4f5f5")
    figure.text(0.008, 1 - 0.3 / height, document["title"], size=17, weight="bold", va="center")
    figure.text(0.008, 1 - 0.58 / height, document["description"], size=10.5, color="#555", va="center")
    annotations = [(one, prometheus.over_time(one["expr"])) for one in document["annotations"]["list"]]
    for panel in panels:
        box = panel["gridPos"]
        top = 1 - (_HEADER_IN + box["y"] * _UNIT_IN * 0.62) / height
        tall = box["h"] * _UNIT_IN * 0.62 / height
        place = (box["x"] / 24 + 0.004, top - tall, box["w"] / 24 - 0.008, tall)
        if panel["type"] == "row":
            figure.text(
                place[0], top - tall * 0.62, panel["title"], size=12.5, weight="bold", color="#1f4e79", va="center"
            )
            continue
        axes = draw(figure, place, height, panel, prometheus)
        if panel["type"] == "timeseries":
            note_annotations(axes, annotations, prometheus)
    figure.savefig(target)
    plt.close(figure)


@contextmanager
def _watched(arguments: argparse.Namespace) -> Iterator[Prometheus]:
    if arguments.prometheus:
        now = time.time()
        yield Prometheus(arguments.prometheus.rstrip("/"), now - arguments.minutes * 60, now)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        observed_demo(Path(folder), rows=arguments.rows, trouble=False) as prometheus,
    ):
        prometheus.began = _first_champion(prometheus) - _BEFORE_S
        yield prometheus


def _first_champion(prometheus: Prometheus) -> float:
    """Return when there was something to look at: a platform takes a while to start."""
    [series] = prometheus.over_time("max(modelyard_registry_champion_number) > 0")
    return float(series["values"][0][0])


def main() -> None:
    """Draw for the command line."""
    parser = argparse.ArgumentParser(description="Draw the dashboards with real data.")
    parser.add_argument("target", type=Path, help="a folder")
    parser.add_argument("--prometheus", help="one that watches a platform; without it a slice of the demo is run")
    parser.add_argument("--minutes", type=float, default=30, help="how far to look back in it (30)")
    parser.add_argument("--rows", type=int, default=6500, help="of the demo's stream (6500)")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    try:
        with _watched(arguments) as prometheus:
            for file in sorted(DASHBOARDS.glob("*.json")):
                target = arguments.target / f"dashboard-{file.stem}.png"
                render(json.loads(file.read_text()), prometheus, target)
                print(target)
    except StageError as error:
        sys.exit(f"render: {error}")


if __name__ == "__main__":
    main()
