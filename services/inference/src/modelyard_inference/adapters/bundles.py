"""The cache of bundles on disk: addressed by content, hashed before every load, fetched again when it is damaged.

A folder appears whole or not at all: a download is made beside the cache and moved into it once it verifies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from modelyard_bundle.manifest import verify
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.refs import Digest

__all__ = ["BundleCache", "BundleSource"]

_log = get_logger(__name__)
_PART = ".part-"


class BundleSource(Protocol):
    """Where bundles are fetched: the registry's client."""

    def download_bundle(self, model: str, digest: str, into: Path) -> Path:
        """Write all files of a bundle into a folder."""


class BundleCache:
    """Keeps verified bundles.

    Args:
        root: the folder; the processes of one server share it, and one of them at a time changes it.
        most: how many are kept; the ones that were not opened for longest go first.
    """

    def __init__(self, root: Path, source: BundleSource, *, most: int = 8) -> None:
        self._root = root
        self._source = source
        self._most = most
        root.mkdir(parents=True, exist_ok=True)
        with self._alone():
            for leftover in root.glob(f"{_PART}*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def open(self, model: str, digest: str) -> tuple[Path, BundleManifest]:
        """Return the folder of a bundle and its manifest, every byte hashed just now.

        Raises:
            Invalid: what the registry gives is not what the digest stands for.
            Unavailable: it is not here and the registry does not give it, or the disk does not take it.
        """
        folder = self._root / Digest.parse(digest).hex
        try:
            with self._alone():
                return folder, self._opened(model, digest, folder)
        except OSError as exc:
            raise Unavailable(f"the bundle cache cannot be written ({exc.strerror or type(exc).__name__})") from exc

    def _opened(self, model: str, digest: str, folder: Path) -> BundleManifest:
        if folder.is_dir():
            try:
                manifest = verify(folder, digest)
            except Invalid as exc:
                _log.error("bundle.damaged", digest=digest, reason=exc.message)
                shutil.rmtree(folder, ignore_errors=True)
            else:
                os.utime(folder)
                return manifest
        manifest = self._fetch(model, digest, folder)
        self._prune({folder.name})
        return manifest

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes of this server away: what one fetches the next one finds."""
        fd = os.open(self._root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _fetch(self, model: str, digest: str, folder: Path) -> BundleManifest:
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=self._root))
        try:
            self._source.download_bundle(model, digest, part)
            manifest = verify(part, digest)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _log.info("bundle.fetched", model=model, digest=digest)
        return manifest

    def _prune(self, keep: Iterable[str]) -> None:
        names = set(keep)
        folders = [path for path in self._root.iterdir() if path.is_dir() and not path.name.startswith(_PART)]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in folders[self._most :]:
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)
