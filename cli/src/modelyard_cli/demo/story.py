"""The story of the loop: what changed on the platform since the last look, one sentence an event."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard_client import Modelyard
from modelyard_common.errors import ModelyardError
from modelyard_contracts.drift_v1 import EpisodeView
from modelyard_contracts.registry_v1 import ModelView, RolloutView, VersionSummary
from modelyard_contracts.training_v1 import TERMINAL_STATES, RunView

from modelyard_cli.output import short

__all__ = ["Story"]

_MARKS = {
    "episode": "[yellow]drift[/yellow]   ",
    "run": "[cyan]training[/cyan]",
    "verdict": "[magenta]gate[/magenta]    ",
}
_ROLLOUT = "[blue]rollout[/blue] "
_SERVING = "[green]serving[/green] "


@dataclass(slots=True)
class Story:
    """Asks the services what is new. A service that is away has nothing new."""

    platform: Modelyard
    model: str
    first_row: int
    """Of the stream within the data set."""
    view: ModelView | None = None
    versions: list[VersionSummary] = field(default_factory=list)
    rollouts: list[RolloutView] = field(default_factory=list)
    runs: list[RunView] = field(default_factory=list)
    episodes: list[EpisodeView] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)
    _champion: str = ""

    def look(self) -> list[str]:
        """Return what happened since the last look."""
        lines: list[str] = []
        for read in (self._drift, self._training, self._registry):
            try:
                lines += read()
            except ModelyardError:
                continue
        return lines

    def number(self, digest: str | None) -> str:
        """Return a version as people call it."""
        found = next((version.number for version in self.versions if version.digest == digest), None)
        return f"version {found}" if found is not None else short(digest)

    def _news(self, key: str, line: str) -> list[str]:
        if key in self._told:
            return []
        self._told.add(key)
        return [line]

    def _drift(self) -> list[str]:
        self.episodes = self.platform.drift.episodes(self.model)
        lines: list[str] = []
        for episode in reversed(self.episodes):
            rows = f"rows {self.first_row + episode.window_first_row}-{self.first_row + episode.opened_row}"
            lines += self._news(
                episode.id,
                f"{_MARKS['episode']} {rows}: [bold]{', '.join(episode.features)}[/bold] drifted "
                f"({episode.severity}) at {episode.opened_at:%Y-%m-%d}",
            )
            if episode.decision is not None and episode.decision.decision != "command":
                decision = episode.decision
                lines += self._news(
                    decision.id, f"{_MARKS['episode']} no retraining: {decision.decision}: {decision.reason}"
                )
        return lines

    def _training(self) -> list[str]:
        self.runs = self.platform.training.runs(self.model)
        lines: list[str] = []
        for run in reversed(self.runs):
            why = {"spec": "a new recipe", "drift": "drift", "performance": "poor performance"}.get(
                run.trigger.kind, run.trigger.kind
            )
            lines += self._news(run.id, f"{_MARKS['run']} run {run.id[-8:]} begins, because of {why}")
            if run.state in TERMINAL_STATES:
                took = (run.ended - run.started).total_seconds() if run.ended and run.started else 0.0
                end = f"{run.state}: {run.reason}" if run.reason else f"{run.state} after {took:.1f} s"
                lines += self._news(f"{run.id}!", f"{_MARKS['run']} run {run.id[-8:]} {end}")
        return lines

    def _registry(self) -> list[str]:
        registry = self.platform.registry
        self.view = registry.model(self.model)
        self.versions = registry.versions(self.model)
        self.rollouts = registry.rollouts(self.model)
        lines: list[str] = []
        for version in reversed(self.versions):
            if version.verdict is not None:
                lines += self._news(
                    f"{version.digest}?",
                    f"{_MARKS['verdict']} version {version.number} ({short(version.digest)}): "
                    f"[bold]{version.verdict.decision}[/bold]: {version.verdict.reason}",
                )
        for rollout in reversed(self.rollouts):
            name = self.number(rollout.candidate)
            for step in rollout.steps:
                if step.revision is None:
                    continue
                kind = "shadow copies" if step.shadow else f"{step.weight} % of requests"
                lines += self._news(f"{rollout.id}/{step.index}", f"{_ROLLOUT} {name} gets {kind}")
            if rollout.state == "aborted":
                lines += self._news(f"{rollout.id}!", f"{_ROLLOUT} of {name} aborted: {rollout.reason}")
        champion = self.view.champion
        if champion is not None and champion.digest != self._champion:
            self._champion = champion.digest
            lines.append(f"{_SERVING} [bold]version {champion.number}[/bold] is champion")
        return lines
