"""What a report says first: one sentence on how it stands, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Verdict", "verdict"]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """The head of a report.

    Attributes:
        tone: none, low, high, critical or insufficient: the colour.
        badge: the same for those who do not see colours.
        headline: one sentence.
        details: more of them.
    """

    tone: str
    badge: str
    headline: str
    details: tuple[str, ...]


def verdict(report: Mapping[str, Any]) -> Verdict:
    """Return what a report says first."""
    window = report["window"]
    details = (*_performance(report), *_done(report["episodes"], window["id"]))
    if window["severity"] == "critical":
        return Verdict("critical", "critical", "The model performs below its floor.", (*_drift(window), *details))
    if window["state"] != "scored":
        headline = "This window has too few rows to be judged, which is not the same as no drift."
        return Verdict("insufficient", "insufficient", headline, details)
    if window["severity"] == "none":
        return Verdict("none", "no drift", "The data looks like the reference.", details)
    parts = _drift(window)
    if not parts:
        return Verdict("low", "low", "Something moved, but on one of the two keys only: this is no drift yet.", details)
    return Verdict(window["severity"], window["severity"], parts[0], (*parts[1:], *details))


def _drift(window: Mapping[str, Any]) -> list[str]:
    """Return sentences on what drifted, what matters first."""
    drifted = sorted((one for one in window["features"] if one["drifted"]), key=lambda one: -one["psi"])
    harmful = [one["feature"] for one in drifted if one["matters"]]
    harmless = [one["feature"] for one in drifted if not one["matters"]]
    sentences = []
    if harmful:
        sentences.append(f"Drift on what matters to the model: {_list(harmful)}.")
    if window["prediction"] is not None and window["prediction"]["drifted"]:
        sentences.append("The model's own answers have shifted.")
    if harmless:
        sentences.append(f"Drift on what matters little to the model: {_list(harmless)}.")
    return sentences


def _performance(report: Mapping[str, Any]) -> list[str]:
    sentences = []
    for entry in report["window"]["performance"][:_NAMED]:
        trained = report["reference_metrics"].get(entry["metric"])
        beside = f"; {trained:.3f} when the reference was trained" if trained is not None else ""
        sentences.append(
            f"{entry['metric']} {entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f}) "
            f"on {entry['rows']} labelled rows{beside}."
        )
    return sentences


def _done(episodes: Sequence[Mapping[str, Any]], window: str) -> list[str]:
    """Return sentences on what was decided about the episodes that this window opened."""
    sentences = []
    for episode in episodes:
        decision = episode["decision"]
        if episode["opened_window"] != window or decision is None:
            continue
        name = _list(episode["features"])
        if decision["decision"] == "command":
            run = f" as {decision['run']}" if decision["run"] else ""
            sentences.append(f"Training was commanded for {name}{run}.")
        else:
            sentences.append(f"No training was commanded for {name}: {decision['reason']}.")
    return sentences


def _list(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
