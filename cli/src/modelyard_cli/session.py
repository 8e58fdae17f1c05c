"""Which platform a command talks to, and how it answers: made once a command from the options that all share."""

from __future__ import annotations

from dataclasses import dataclass
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

    def url(self, service: str) -> str:
        """Return where a service is."""
        return self.urls.get(service) or self.layout.url(service)

    def connect(self) -> Modelyard:
        """Return clients of the platform."""
        return Modelyard(
            registry_url=self.url("registry"),
            training_url=self.url("training"),
            inference_url=self.url("inference"),
            drift_url=self.url("drift"),
            token_file=self.token_file,
        )
