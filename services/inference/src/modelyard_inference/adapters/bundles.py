"""The cache of bundles on disk: addressed by content, hashed before every load, fetched again when it is damaged.

A folder appears whole or not at all: a download is made beside the cache and moved into it once it verifies. Each
digest has a lock of its own, so that what is here opens while another bundle is on its way for minutes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from modelyard_bundle.manifest import verify
from modelyard_common.errors import Invalid, Unavailable
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.refs import Digest

__all__ = ["BundleCache", "BundleSource", "hold"]

_log = get_logger(__name__)
_PART = ".part-"
_LOCK = ".lock"


class BundleSource(Protocol):
    """Where bundles are fetched: the registry's client."""

    def download_bundle(self, model: str, digest: str, into: Path) -> Path:
        """Write all files of a bundle into a folder."""


def hold(folder: Path) -> int:
    """Keep a bundle in the cache, for a process that will read it again, until the descriptor returned is closed.

    Raises:
        OSError: it is not there, or its file system has no such locks.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


class BundleCache:
    """Keeps verified bundles.

    Args:
        root: the folder; the processes of one server share it, and one of them at a time changes a bundle.
        most: how many are kept; the ones that were not opened for longest go first, unless somebody holds them.
    """

    def __init__(self, root: Path, source: BundleSource, *, most: int = 8) -> None:
        self._root = root
        self._source = source
        self._most = most
        root.mkdir(parents=True, exist_ok=True)
        self._clear()

    def open(self, model: str, digest: str) -> tuple[Path, BundleManifest]:
        """Return the folder of a bundle and its manifest, every byte hashed just now.

        Raises:
            Invalid: what the registry gives is not what the digest stands for.
            Unavailable: it is not here and the registry does not give it, or the disk does not take it.
        """
        with self.reading(model, digest) as found:
            return found

    @contextmanager
    def reading(self, model: str, digest: str) -> Iterator[tuple[Path, BundleManifest]]:
        """Give the same, and keep the folder meanwhile, though others take more than the cache has room for."""
        folder = self._root / Digest.parse(digest).hex
        with contextlib.ExitStack() as held:
            try:
                with self._alone(folder.name):
                    manifest = self._found(digest, folder) or self._fetch(model, digest, folder)
                    with contextlib.suppress(OSError):  # where it cannot be held, the latest is removed last
                        held.callback(os.close, hold(folder))
            except OSError as exc:
                why = exc.strerror or type(exc).__name__
                raise Unavailable(f"the bundle cache cannot be written ({why})") from exc
            yield folder, manifest

    def _found(self, digest: str, folder: Path) -> BundleManifest | None:
        if not folder.is_dir():
            return None
        try:
            manifest = verify(folder, digest)
        except Invalid as exc:
            _log.error("bundle.damaged", digest=digest, reason=exc.message)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        os.utime(folder)
        return manifest

    def _fetch(self, model: str, digest: str, folder: Path) -> BundleManifest:
        part = self._root / f"{_PART}{folder.name}"
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(mode=0o700)
        try:
            self._source.download_bundle(model, digest, part)
            manifest = verify(part, digest)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _log.info("bundle.fetched", model=model, digest=digest)
        self._prune(folder)
        return manifest

    def _prune(self, opened: Path) -> None:
        times = {folder: _opened_at(folder) for folder in self._root.iterdir() if not folder.name.startswith(_PART)}
        latest = sorted((folder for folder in times if times[folder]), key=lambda folder: times[folder], reverse=True)
        for folder in latest[self._most :]:
            if folder == opened:
                continue
            with contextlib.suppress(BlockingIOError), self._alone(folder.name, wait=False):
                if _opened_at(folder) == times[folder]:
                    _remove_unless_held(folder)

    def _clear(self) -> None:
        """Remove what processes left that were killed."""
        for left in {path.name.removeprefix(_PART).removesuffix(_LOCK) for path in self._root.glob(f"{_PART}*")}:
            with contextlib.suppress(BlockingIOError), self._alone(left, wait=False):
                shutil.rmtree(self._root / f"{_PART}{left}", ignore_errors=True)

    @contextmanager
    def _alone(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Keep away who else wants this bundle, also in the other processes: what one fetches the next one finds.

        Raises:
            BlockingIOError: somebody has it, and we do not wait.
        """
        path = self._root / f"{_PART}{name}{_LOCK}"
        fd = _locked(path, wait=wait)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)


def _locked(path: Path, *, wait: bool) -> int:
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.stat(), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        # Whoever had it has removed it since we opened it, and another may lock a new one.
        os.close(fd)


def _opened_at(folder: Path) -> float:
    """Return when a bundle was last opened; 0 where there is none."""
    try:
        return folder.stat().st_mtime if folder.is_dir() else 0.0
    except FileNotFoundError:  # another process was faster
        return 0.0


def _remove_unless_held(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _is_free(fd):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(fd)


def _is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # its file system has no such locks, so that nobody holds it either
        return True
    return True
