"""What a change of the manifest means for the loop: which part of it follows, and when.

A table from fields to parts, and a sentence for each part. What else decides (is there a champion, was exactly this
trained before) is told to it as facts, so that it says nothing about a rollout that does not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["PARTS", "Consequence", "Facts", "Part", "When", "consequences", "part_of"]

Part = Literal[
    "training", "limits", "triggers", "gate", "contention", "rollout", "routing", "monitoring", "pause", "record"
]
When = Literal["now", "later", "never"]

PARTS: tuple[tuple[str, Part], ...] = (
    ("spec.description", "record"),
    ("spec.owner", "record"),
    ("spec.deletionPolicy", "record"),
    ("spec.serve.replicas", "record"),
    ("spec.paused", "pause"),
    ("spec.task", "training"),
    ("spec.data", "training"),
    ("spec.train.recipe", "training"),
    ("spec.train.learnFrom", "training"),
    ("spec.train.split", "training"),
    ("spec.train.seed", "training"),
    ("spec.train.timeout", "limits"),
    ("spec.train.resources", "limits"),
    ("spec.train.when", "triggers"),
    ("spec.gate", "gate"),
    ("spec.rollout.contenders", "contention"),
    ("spec.rollout", "rollout"),
    ("spec.serve.logPayloads", "routing"),
    ("spec.serve.redact", "routing"),
    ("spec.serve.batchRows", "routing"),
    ("spec.monitor.replay", "routing"),
    ("spec.monitor", "monitoring"),
)
"""The first that fits a field is its part of the loop."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the model would stand.

    Attributes:
        learns_anew: data or recipe are not those of the policy before.
        trained_as: the version that was trained on exactly this data and recipe, in words.
        routing_moves: a new routing table is published.
        rolling_out: a rollout is under way.
        pins: the manifest pins a version.
        pinned_starts: that version's rollout starts.
        pinned_unknown: that version is not registered yet.
    """

    champion: bool
    learns_anew: bool
    paused: bool
    unpaused: bool
    routing_moves: bool
    rolling_out: bool
    trained_as: str = ""
    pins: bool = False
    pinned_starts: bool = False
    pinned_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Consequence:
    """What one part of the loop does about the change."""

    part: Part
    when: When
    sentence: str


def part_of(path: str) -> Part:
    """Return the part of the loop that a field is for. Raise LookupError for a field that no part has."""
    for prefix, part in PARTS:
        if path == prefix or path.startswith((f"{prefix}.", f"{prefix}[")):
            return part
    raise LookupError(f"{path} belongs to no part of the loop")


def consequences(paths: Sequence[str], facts: Facts) -> tuple[Consequence, ...]:
    """Return what follows from changed fields, in the order of the loop; of a new model all of them changed."""
    touched = {part_of(path) for path in paths}
    found = [_training(facts) if facts.learns_anew or facts.unpaused else None]
    found += [_SENTENCES[part] if part in touched else None for part in ("limits", "triggers")]
    if "gate" in touched:
        stays = "; the champion is not judged again" if facts.champion else ""
        found.append(Consequence("gate", "later", f"the next version is judged by these gates{stays}"))
    found += [_SENTENCES["contention"] if "contention" in touched else None]
    found.append(_rollout(facts) if "rollout" in touched or facts.pinned_starts else None)
    found.append(_routing(facts) if facts.routing_moves else None)
    found += [_SENTENCES["monitoring"] if "monitoring" in touched else None]
    found.append(_pause(facts) if "pause" in touched else None)
    found += [_SENTENCES["record"] if touched == {"record"} else None]
    return tuple(one for one in found if one is not None)


_SENTENCES: dict[Part, Consequence] = {
    "limits": Consequence("limits", "later", "the next run gets these limits; one under way keeps its own"),
    "triggers": Consequence("triggers", "now", "schedules are set anew; drift and performance count from now on"),
    "contention": Consequence("contention", "later", "the next judgement has that many predecessors in contention"),
    "monitoring": Consequence("monitoring", "later", "windows that close from now on are judged by it"),
    "record": Consequence("record", "never", "nothing is trained, judged or routed anew"),
}


def _training(facts: Facts) -> Consequence:
    if facts.paused:
        return Consequence("training", "later", "paused: the run starts when spec.paused is false")
    if facts.trained_as:
        made = f"no run: {facts.trained_as} was trained on exactly this data and recipe; `modelyard train` trains anew"
        return Consequence("training", "never", made)
    sentence = "training starts a run, unless exactly this data and recipe had one before"
    return Consequence("training", "now", sentence)


def _rollout(facts: Facts) -> Consequence:
    if facts.pinned_starts:
        return Consequence("rollout", "now", "the pinned version's rollout starts")
    if facts.pinned_unknown:
        return Consequence("rollout", "later", "the pinned version is rolled out once it is registered")
    if facts.pins:
        return Consequence("rollout", "never", "the pinned version is champion, or on its way, already")
    keeps = "; the one under way keeps the steps that it began with" if facts.rolling_out else ""
    return Consequence("rollout", "later", f"the next rollout goes by it{keeps}")


def _routing(facts: Facts) -> Consequence:
    anew = "; the running step is counted anew" if facts.rolling_out else ""
    return Consequence("routing", "now", f"servers take a new routing revision without a restart{anew}")


def _pause(facts: Facts) -> Consequence:
    if facts.paused:
        return Consequence("pause", "now", "nothing is trained and no rollout goes on; the champion answers")
    return Consequence("pause", "now", "training and rollouts go on")
