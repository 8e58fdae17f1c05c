"""A model as `kubectl` shows it, and as the platform knows it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from modelyard_cli.demo.stream import Stream
from modelyard_cli.manifests import with_uploaded_data
from modelyard_client import Modelyard
from modelyard_contracts.training_v1 import TERMINAL_STATES

from tests.cluster.installation import Installation

__all__ = [
    "LOOK_S",
    "MODEL",
    "SEEN_S",
    "apply_manifest",
    "columns",
    "condition",
    "is_about_its_spec",
    "only_by_hand",
    "told_as_it_is",
    "trainer_jobs",
]

MODEL = "electricity"
LOOK_S = 5.0
"""Between two looks of the operator."""
# A look, and what the API and a busy machine take.
SEEN_S = 30.0
STILL_S = 240.0


def apply_manifest(platform: Installation, client: Modelyard, stream: Stream, **train: Any) -> None:
    """Apply the example's manifest with kubectl, its data uploaded and named by its digest."""
    manifest, _ = with_uploaded_data(stream.manifest_of_history(), stream.data, client.training)
    document = yaml.safe_load((stream.folder / "model.yaml").read_text())
    document["spec"]["data"]["source"] = {"uri": manifest.spec.data.source.uri}
    document["spec"]["train"] |= train
    platform.kubectl("apply", "--filename=-", stdin=json.dumps(document))
    platform.eventually(lambda: is_about_its_spec(platform), timeout_s=SEEN_S)


def only_by_hand(platform: Installation, client: Modelyard, stream: Stream) -> None:
    """Take the model's triggers away, and wait for what they have begun.

    To be asked the same row ten thousand times is drift: a version made of it would change what other tests look at.
    """
    apply_manifest(platform, client, stream, when=[])

    def is_still() -> bool:
        rollout = client.registry.model(MODEL).rollout
        runs_on = any(run.state not in TERMINAL_STATES for run in client.training.runs(MODEL))
        return not runs_on and (rollout is None or rollout.state != "running")

    platform.eventually(is_still, timeout_s=STILL_S)


def trainer_jobs(platform: Installation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.get("jobs", "--selector=app.kubernetes.io/name=modelyard-trainer")["items"]
    return found


def columns(platform: Installation) -> dict[str, str]:
    """Return what `kubectl get mm` prints, by column."""
    header, row = platform.kubectl("get", f"mm/{MODEL}").splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    ends = [*starts[1:], None]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def condition(platform: Installation, kind: str) -> dict[str, Any]:
    """Return a condition of the model's status."""
    found = platform.get(f"mm/{MODEL}")["status"]["conditions"]
    return next(one for one in found if one["type"] == kind)


def told_as_it_is(platform: Installation, client: Modelyard) -> tuple[str, ...]:
    """Wait until the columns say what the registry says; return them."""

    def truth() -> tuple[str, ...]:
        severity = client.drift.status(MODEL).severity
        view = client.registry.model(MODEL)
        running = view.rollout.steps if view.rollout is not None and view.rollout.state == "running" else ()
        step = next((step for step in running if step.outcome == "running"), None)
        place = ""
        if step is not None:
            place = f"{step.index + 1}/{len(running)} " + ("shadow" if step.shadow else f"{step.weight}%")
        numbers = [str(version.number) if version else "" for version in (view.champion, view.candidate)]
        return ("True", *numbers, place, severity)

    def told() -> tuple[str, ...]:
        shown = columns(platform)
        return shown["READY"], shown["CHAMPION"], shown["CANDIDATE"], shown["STEP"], shown["DRIFT"]

    platform.eventually(lambda: told() == truth(), timeout_s=SEEN_S)
    return told()


def is_about_its_spec(platform: Installation) -> bool:
    """Return whether the status says of the newest spec that it was taken."""
    found = platform.get(f"mm/{MODEL}")
    accepted = condition(platform, "Accepted") if "conditions" in found.get("status", {}) else {}
    observed = found.get("status", {}).get("observedGeneration")
    return accepted.get("status") == "True" and observed == found["metadata"]["generation"]
