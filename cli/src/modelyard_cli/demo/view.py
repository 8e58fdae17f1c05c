"""What a person watches while the demo runs: the story above, progress and versions below."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelyard_cli.demo.story import Story
from modelyard_cli.output import short

__all__ = ["View"]

_EVERY_S = 1.5
_SHOWN_VERSIONS = 8
_STATES = {"champion": "green", "candidate": "yellow", "aborted": "red", "refused": "red"}


@dataclass(slots=True)
class View:
    """Shows the story: live on a terminal, as plain lines anywhere else."""

    console: Console
    total: int
    story: Story | None = None
    notes: str = ""
    _progress: Progress = field(init=False)
    _task: TaskID = field(init=False)
    _live: Live | None = None
    _plain_at: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Make the progress bar."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self._task = self._progress.add_task("rows", total=self.total, note="")

    def say(self, line: str) -> None:
        """Print one line of the story."""
        self.console.print(line, soft_wrap=True)

    def rows(self, done: int, note: str = "") -> None:
        """Show how many rows were replayed."""
        self._progress.update(self._task, completed=done, note=note)
        if self._live is None and done - self._plain_at >= self.total / 10:
            self._plain_at = done
            self.say(f"[dim]{done} of {self.total} rows {note}[/dim]")

    def refresh(self) -> None:
        """Look at the platform and tell what is new."""
        if self.story is None:
            return
        with self._lock:
            for line in self.story.look():
                self.say(line)
            if self._live is not None:
                self._live.update(self._panel())

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the view, and look at the platform again and again."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(_EVERY_S):
                self.refresh()

        follower = threading.Thread(target=follow, name="story", daemon=True)
        if self.console.is_terminal:
            self._live = Live(self._panel(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join(10)
            self.refresh()
            if self._live is not None:
                self._live.stop()
                self._live = None
            sys.stderr.flush()

    def _panel(self) -> RenderableType:
        return Group(self.versions_table(), self._progress)

    def versions_table(self) -> Table:
        """Return the newest versions as a table."""
        table = Table(box=None, header_style="bold dim", pad_edge=False)
        for header in ("version", "digest", "state", "verdict", "learned until"):
            table.add_column(header)
        versions = self.story.versions[:_SHOWN_VERSIONS] if self.story else []
        for version in versions:
            table.add_row(
                str(version.number),
                short(version.digest),
                f"[{_STATES.get(version.state, 'dim')}]{version.state}[/]",
                version.verdict.decision if version.verdict else "",
                f"{version.data_until:%Y-%m-%d %H:%M}" if version.data_until else "",
            )
        return table
