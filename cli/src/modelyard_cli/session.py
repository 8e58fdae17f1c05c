"""Which platform a command talks to, and how it answers: made once a command from the options that all share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from modelyard_client import Modelyard

from modelyard_cli.embedded.layout import Layout

__all__ = ["Session"]


@dataclass(frozen=True, slots=True)
class Session:
    """The options that come before the command.

    Attributes:
        urls: addresses given by hand; the rest follows from the embedded platform's ports.
    """

    layout: Layout
    urls: dict[str, str]
    token_file: Path | None
    _opened: list[Modelyard] = field(default_factory=list, init=False, repr=False)

    def url(self, service: str) -> str:
        """Return where a service is."""
        return self.urls.get(service) or self.layout.url(service)

    def connect(self) -> Modelyard:
        """Return clients of the platform, which are closed with the session."""
        clients = Modelyard(
            registry_url=self.url("registry"),
            training_url=self.url("training"),
            inference_url=self.url("inference"),
            drift_url=self.url("drift"),
            token_file=self.token_file,
        )
        self._opened.append(clients)
        return clients

    def close(self) -> None:
        """Close all connections."""
        while self._opened:
            self._opened.pop().close()
