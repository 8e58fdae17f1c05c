"""Names of things: models, digests, datasets, runs, predictions. Each type parses, formats and refuses.

Law, for every type T and every valid text: ``str(T.parse(text)) == text``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import StringConstraints

__all__ = [
    "DIGEST_PATTERN",
    "MODEL_NAME_PATTERN",
    "DatasetRef",
    "Digest",
    "DigestText",
    "ModelName",
    "PredictionId",
    "RefError",
]

MODEL_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""A DNS-1123 label: it names a Kubernetes object, an URL segment and an MLflow model alike."""

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"

ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]
DigestText = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]


class RefError(ValueError):
    """A reference does not have the form that its type prescribes."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 over content: ``sha256:<64 hex digits>``."""

    hex: str

    def __post_init__(self) -> None:
        """Refuse anything but 64 lower-case hexadecimal digits."""
        if not re.fullmatch(r"[0-9a-f]{64}", self.hex):
            raise RefError(f"a digest has 64 lower-case hexadecimal digits, found {self.hex[:80]!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest that text names; raise RefError otherwise."""
        algorithm, colon, rest = text.partition(":")
        if algorithm != "sha256" or not colon:
            raise RefError(f"a digest is written sha256:<hex>, found {text[:80]!r}")
        return cls(rest)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self.hex[:12]


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset version by its content: ``dataset://sha256:<hex>``."""

    digest: Digest

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference that text names; raise RefError otherwise."""
        scheme, separator, rest = text.partition("://")
        if scheme != "dataset" or not separator:
            raise RefError(f"a dataset reference is written dataset://sha256:<hex>, found {text[:80]!r}")
        return cls(Digest.parse(rest))

    def __str__(self) -> str:
        return f"dataset://{self.digest}"


@dataclass(frozen=True, slots=True)
class PredictionId:
    """One row of one prediction response: ``<response id>/<row>``; the row starts at 0."""

    response: str
    row: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that text names; without a row it is row 0. Raise RefError when it is no id."""
        response, slash, row = text.rpartition("/")
        if not slash:
            response, row = text, "0"
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", response) or not re.fullmatch(r"0|[1-9][0-9]{0,8}", row):
            raise RefError(f"a prediction id is written <id>/<row>, found {text[:160]!r}")
        return cls(response, int(row))

    def __str__(self) -> str:
        return f"{self.response}/{self.row}"
