"""What is to be scored and how, and what became of it: apart, so that a command line is read without its libraries."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelyard_cli.offline.formats import TableFormat
from modelyard_cli.offline.shards import Shard

__all__ = ["OnError", "Order", "Outcome"]

_END_BYTES = 64 * 1024
"""Read of each end of an input: far more than the head of a table, and no time on any disk."""


class OnError(StrEnum):
    """What becomes of a row that the model refuses."""

    fail = "fail"
    skip = "skip"
    reject_file = "reject-file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be scored, and how.

    Attributes:
        version: a digest; None leaves it to the routing table.
        most_rows: only the first ones of the file.
    """

    model: str
    source: Path
    source_format: TableFormat
    target: Path
    target_format: TableFormat
    keep: tuple[str, ...]
    version: str | None
    logged: bool
    shard: Shard | None
    most_rows: int | None
    batch_rows: int
    concurrency: int
    patience_s: float
    on_error: OnError
    force: bool

    @property
    def output(self) -> Path:
        """Where the output goes: that of a shard has a name of its own."""
        return self.shard.name(self.target) if self.shard else self.target

    @property
    def rejects(self) -> Path:
        """Where the rows go that the model refuses."""
        return self.output.with_name(f"{self.output.name}.rejected.jsonl")

    def origin(self) -> dict[str, Any]:
        """Return what the output is made from; an output of another origin is not this one's.

        Of the input that is what replacing it changes, and what tells without reading it that it is another: a shard
        reads its part only.
        """
        status = self.source.stat()
        return {
            "model": self.model,
            "version": self.version,
            "input": self.source.name,
            "input_bytes": status.st_size,
            "input_digest": _digest_of_ends(self.source),
            "input_modified_ns": status.st_mtime_ns,
            "shard": f"{self.shard.index}/{self.shard.total}" if self.shard else None,
            "rows": self.most_rows,
            "keep": list(self.keep),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file.

    Attributes:
        done_before: the shard's output was there already, and nothing was asked.
    """

    output: Path
    rows: int = 0
    refused: int = 0
    rejects: Path | None = None
    seconds: float = 0.0
    done_before: bool = False


def _digest_of_ends(path: Path) -> str:
    """Return a digest of the first and the last bytes of a file: those of Parquet say what is in between."""
    with path.open("rb") as handle:
        digest = hashlib.sha256(handle.read(_END_BYTES))
        handle.seek(max(handle.tell(), handle.seek(0, os.SEEK_END) - _END_BYTES))
        digest.update(handle.read())
    return digest.hexdigest()
