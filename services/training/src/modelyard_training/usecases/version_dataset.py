"""Version a dataset: convert an upload to its canonical form, name it by its content, keep it once.

The file is in its place, synced, before its row is committed: a dataset that is known can always be read. The same
rows uploaded again, in whatever format, are the same version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from modelyard_common.clock import Clock

from modelyard_training.domain.datasets import Dataset, DatasetColumn
from modelyard_training.domain.ports import Tables, Transactions

__all__ = ["Canonical", "Canonicalise", "Format", "VersionDataset", "Versioned"]

Format = Literal["parquet", "csv"]


@dataclass(frozen=True, slots=True)
class Canonical:
    """A table in canonical form."""

    digest: str
    rows: int
    size_bytes: int
    columns: tuple[DatasetColumn, ...]


class Canonicalise(Protocol):
    """Writes the table in ``source`` to ``draft`` in canonical form; raises Invalid naming what is wrong."""

    def __call__(self, source: Path, draft: Path, *, format: Format) -> Canonical:
        """Convert."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """The dataset version, and whether it was made just now."""

    dataset: Dataset
    new: bool


@dataclass(frozen=True, slots=True)
class VersionDataset:
    """Makes dataset versions."""

    transactions: Transactions
    tables: Tables
    canonicalise: Canonicalise
    clock: Clock
    counted: Callable[[Dataset], None] = lambda _: None

    def __call__(self, upload: Path, *, format: Format, name: str = "") -> Versioned:
        """Return the version of an uploaded file.

        Raises:
            Invalid: the file can not be read, has no rows, or has columns that can not be used.
        """
        draft = upload.with_suffix(".canonical")
        try:
            canonical = self.canonicalise(upload, draft, format=format)
            with self.transactions.read() as reader:
                known = reader.dataset(canonical.digest)
            if known is None or self.tables.path(canonical.digest) is None:
                self.tables.publish(draft, canonical.digest)
        finally:
            draft.unlink(missing_ok=True)
        if known is not None:
            return Versioned(known, new=False)
        dataset = Dataset(
            digest=canonical.digest,
            rows=canonical.rows,
            size_bytes=canonical.size_bytes,
            columns=canonical.columns,
            created=self.clock.now(),
            name=name,
        )
        with self.transactions.write() as store:
            kept = store.add_dataset(dataset)
        if kept == dataset:
            self.counted(dataset)
        return Versioned(kept, new=kept == dataset)
