"""Draw a demo: accuracy over time beside the first version left alone, who answered, and when drift spoke.

    python tools/plot_demo.py .modelyard/demo-electricity docs/images/electricity.png [ROW TEXT]

Marks ROW of the data set with TEXT when given. Reads what `modelyard demo` leaves in its folder (demo/answers.csv,
demo/result.json); invents nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import dates

ROLLING_ROWS = 1_000
INK, SERVED, FROZEN, NAIVE, DRIFT = "#1f2933", "#0b7285", "#e8590c", "#adb5bd", "#c92a2a"


def main() -> None:
    """Draw the picture."""
    home, target = Path(sys.argv[1]), Path(sys.argv[2])
    answers = pd.read_csv(home / "demo/answers.csv", parse_dates=["event_time"], keep_default_na=False)
    result = json.loads((home / "demo/result.json").read_text())
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(11, 6.4), sharex=True, height_ratios=(5, 2.2, 0.9), layout="constrained"
    )
    draw_accuracy(top, answers, result)
    draw_versions(middle, answers, result)
    draw_episodes(bottom, answers, result)
    if len(sys.argv) > 4:
        mark(top, answers, int(sys.argv[3]), sys.argv[4])
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=140, facecolor="white")


def draw_accuracy(axes: plt.Axes, answers: pd.DataFrame, result: dict) -> None:
    """Draw the rolling accuracy of what was answered, and of what would have been."""
    lines = (
        ("naive", NAIVE, 1.2, "repeat the newest known label", result["accuracy_naive"]),
        ("frozen", FROZEN, 1.6, "first version left alone", result["accuracy_frozen"]),
        ("answer", SERVED, 2.0, "what the platform answered", result["accuracy_platform"]),
    )
    for column, colour, width, name, overall in lines:
        right = (answers[column].astype(str) == answers["truth"].astype(str)).rolling(ROLLING_ROWS).mean()
        axes.plot(answers["event_time"], right, color=colour, linewidth=width, label=f"{name}: {overall:.3f}")
    axes.set_ylabel(f"accuracy, last {ROLLING_ROWS:,} rows")
    axes.set_ylim(0.4, 1.0)
    axes.legend(loc="lower left", frameon=False, fontsize=9, ncols=3)
    axes.set_title("One manifest, 33,312 half-hours: the loop on the electricity market", loc="left", color=INK)
    axes.grid(axis="y", color="#e9ecef")


def mark(axes: plt.Axes, answers: pd.DataFrame, row: int, text: str) -> None:
    """Say what happened at a row."""
    at = answers["event_time"].iloc[row - int(answers["row"].iloc[0])]
    axes.axvline(at, color=INK, linewidth=1, linestyle=":")
    axes.text(at, 0.985, f" {text}", va="top", fontsize=9, color=INK)


def draw_versions(axes: plt.Axes, answers: pd.DataFrame, result: dict) -> None:
    """Draw which version answered each row."""
    numbers = {version["digest"]: version["version"] for version in result["versions"]}
    answered = answers[answers["version"] != ""]
    axes.scatter(answered["event_time"], answered["version"].map(numbers), s=1.5, color=SERVED, rasterized=True)
    refused = sum(1 for v in result["versions"] if not any(r["state"] == "completed" for r in v["rollout"]))
    axes.set_ylabel("version that\nanswered")
    axes.text(
        0.01,
        0.93,
        f"{len(numbers)} trained, {refused} never promoted",
        transform=axes.transAxes,
        va="top",
        fontsize=9,
        color=INK,
    )
    axes.grid(axis="y", color="#e9ecef")


def draw_episodes(axes: plt.Axes, answers: pd.DataFrame, result: dict) -> None:
    """Draw when each episode opened."""
    first = int(answers["row"].iloc[0])
    for episode in result["episodes"]:
        at = answers["event_time"].iloc[min(episode["row"] - first, len(answers) - 1)]
        poor = any(name.startswith("performance:") for name in episode["features"])
        low = episode["severity"] == "low"
        axes.plot(at, 0, marker="v" if poor else "o", color=NAIVE if low else DRIFT, markersize=7)
    axes.set_yticks([])
    axes.set_ylabel("episodes", rotation=0, ha="right", va="center")
    axes.text(1.0, -0.9, "● drift   ▼ performance   grey: low", transform=axes.transAxes, ha="right", fontsize=8)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(dates.AutoDateLocator()))


if __name__ == "__main__":
    main()
