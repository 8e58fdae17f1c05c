"""Which rows of a file are whose: shards are runs of rows; their outputs, one after the other, are the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from modelyard_common.errors import Invalid

__all__ = ["Shard"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of a file.

    Attributes:
        index: from 0, as an Indexed Job of Kubernetes counts.
        total: how many there are.
    """

    index: int
    total: int

    def __post_init__(self) -> None:
        """Refuse an index that is none of the shards."""
        if not 0 <= self.index < self.total:
            raise Invalid(f"shard {self.index} of {self.total}: shards are counted from 0 to {self.total - 1}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that ``K/N`` names. Raise Invalid."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None:
            raise Invalid(f"--shard: {text!r} is not K/N, such as 0/4 for the first of four")
        return cls(int(found[1]), int(found[2]))

    def range(self, rows: int) -> tuple[int, int]:
        """Return the first of this shard's rows and the one after its last.

        Law: the shards of a file are disjoint, differ by one row at most, and give the file one after the other.

        Raises:
            Invalid: there are fewer rows than shards.
        """
        if rows < self.total:
            raise Invalid(f"there are {rows} rows for {self.total} shards; use at most {rows}")
        return rows * self.index // self.total, rows * (self.index + 1) // self.total

    def name(self, output: Path) -> Path:
        """Return where this shard's part of an output goes, such as ``out-00000-of-00004.parquet``."""
        return output.with_name(f"{output.stem}-{self.index:05}-of-{self.total:05}{output.suffix}")
