"""Where dataset versions lie: one Parquet file each, named by its digest, never changed once it is there."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from modelyard_common.errors import Unavailable
from modelyard_contracts.refs import Digest

__all__ = ["FolderTables"]


class FolderTables:
    """Dataset files in a folder.

    Args:
        root: the folder; ``uploads`` in it holds what is not finished.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._uploads = self._root / "uploads"
        # Whatever lies here belonged to requests of a process that is gone.
        shutil.rmtree(self._uploads, ignore_errors=True)
        self._uploads.mkdir(parents=True)

    def draft(self) -> Path:
        """Return a new path for an upload, on the file system where it may stay."""
        return self._uploads / secrets.token_hex(8)

    def path(self, digest: str) -> Path | None:
        """Return the file of a dataset version; None when it is not there."""
        path = self._place(digest)
        return path if path.exists() else None

    def publish(self, draft: Path, digest: str) -> None:
        """Move a finished draft to its place for good: synced to the disk, all or nothing."""
        place = self._place(digest)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _sync(draft)
            draft.replace(place)
            _sync(place.parent)
            _sync(self._root)
        except OSError as exc:
            raise Unavailable(f"the dataset could not be kept: {exc.strerror}") from exc

    def _place(self, digest: str) -> Path:
        name = Digest.parse(digest).hex
        return self._root / name[:2] / f"{name}.parquet"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
