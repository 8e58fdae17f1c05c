"""The verified cache of bundles: content-addressed folders on disk, filled from MLflow's artifacts.

A bundle enters only whole and only after every file was hashed and compared with its manifest, whose own digest
is the version's identity. Files are hashed again when they are served, so that a damaged disk is noticed and
the bundle fetched anew. Refused are: unlisted files, paths that leave the folder, and pickles, which run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from modelyard_common.errors import Invalid, NotFound, TooLarge, Unavailable
from modelyard_contracts.bundle_v1 import MANIFEST_FILE, BundleFile, BundleManifest, manifest_digest
from modelyard_contracts.problem import FieldError
from modelyard_contracts.refs import Digest
from pydantic import ValidationError

from modelyard_registry.adapters.mlflow import Artifacts
from modelyard_registry.usecases.records import Version

__all__ = ["BundleCache", "CachedFile"]

MAX_FILES = 2000
MANIFEST_MAX_BYTES = 4 * 1024 * 1024
PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".pt", ".pth"})
"""Formats that run code when they are loaded."""


class CachedFile:
    """A file whose bytes were just found to be what the manifest says."""

    def __init__(self, path: Path, digest: str, size_bytes: int) -> None:
        self.path = path
        self.digest = digest
        self.size_bytes = size_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes."""
        with self.path.open("rb") as file:
            while chunk := file.read(256 * 1024):
                yield chunk


class BundleCache:
    """Implements the use cases' ``Bundles``."""

    def __init__(
        self,
        root: Path,
        artifacts: Artifacts,
        *,
        max_bytes: int,
        may_be_pickled: Callable[[], bool] = lambda: False,
        fetched: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._root = root
        self._artifacts = artifacts
        self._max_bytes = max_bytes
        self._may_be_pickled = may_be_pickled
        self._fetched = fetched
        self._guard = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def verify(self, *, run_id: str, artifact_path: str, digest: str) -> BundleManifest:
        """Return the manifest of a bundle that is, from now on, in the cache."""
        with self._lock(digest):
            cached = self._cached_manifest(digest)
            return cached or self._fetch(run_id, artifact_path, digest, pickled=self._may_be_pickled())

    def open(self, version: Version, path: str) -> CachedFile:
        """Return one file of a version, verified; a bundle that was lost or damaged is fetched again.

        Raises:
            NotFound: the bundle has no such file.
            Unavailable: the cache lost it and MLflow is away.
        """
        listed = {file.path: file for file in version.manifest.files}
        if path != MANIFEST_FILE and path not in listed:
            raise NotFound(f"{version.name} of {version.model} has no file {path[:200]!r}")
        with self._lock(version.digest):
            found = self._intact(version, path, listed.get(path))
            if found is None:
                shutil.rmtree(self._folder(version.digest), ignore_errors=True)
                # It was let in once: a waiver that has ended does not take a served version away.
                self._fetch(version.mlflow_run_id, version.artifact_path, version.digest, pickled=True)
                found = self._intact(version, path, listed.get(path))
        if found is None:
            raise Unavailable(f"{path} of {version.name} cannot be read back from the cache")
        return found

    def drop(self, digest: str) -> None:
        """Forget a bundle's bytes."""
        with self._lock(digest):
            shutil.rmtree(self._folder(digest), ignore_errors=True)

    def _lock(self, digest: str) -> threading.Lock:
        with self._guard:
            return self._locks[digest]

    def _folder(self, digest: str) -> Path:
        return self._root / Digest.parse(digest).hex

    def _cached_manifest(self, digest: str) -> BundleManifest | None:
        """Return the manifest of a bundle whose every file in the cache is as it should be."""
        folder = self._folder(digest)
        try:
            manifest = _parse((folder / MANIFEST_FILE).read_bytes(), digest)
        except (OSError, Invalid):
            return None
        whole = all(_sha256(folder / file.path) == file.digest for file in manifest.files)
        return manifest if whole else None

    def _intact(self, version: Version, path: str, listed: BundleFile | None) -> CachedFile | None:
        file = self._folder(version.digest) / path
        digest = _sha256(file)
        if digest is None:
            return None
        if listed is None:
            try:
                _parse(file.read_bytes(), version.digest)
            except Invalid:
                return None
        elif digest != listed.digest:
            return None
        return CachedFile(file, digest, file.stat().st_size)

    def _fetch(self, run_id: str, artifact_path: str, digest: str, *, pickled: bool) -> BundleManifest:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix="fetch-", dir=self._root))
            try:
                manifest = self._download(run_id, artifact_path, digest, staging, pickled=pickled)
                shutil.rmtree(self._folder(digest), ignore_errors=True)
                staging.rename(self._folder(digest))
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as exc:
            raise Unavailable(f"the bundle cache cannot be written: {exc.strerror or exc}") from exc
        self._fetched(sum(file.size_bytes for file in manifest.files))
        return manifest

    def _download(self, run_id: str, artifact_path: str, digest: str, into: Path, *, pickled: bool) -> BundleManifest:
        try:
            root = self._artifacts.root(run_id, artifact_path)
            raw = self._small(root, MANIFEST_FILE)
        except NotFound as exc:
            field = FieldError(path="mlflow_run_id", message=f"there is no bundle at {artifact_path!r} of this run")
            raise Invalid(f"{exc}", errors=(field,)) from exc
        manifest = _parse(raw, digest)
        _check_files(manifest, self._max_bytes, pickled=pickled)
        listed = {file.path for file in manifest.files}
        found = set(self._artifacts.files(root, limit=MAX_FILES)) - {MANIFEST_FILE}
        if found != listed:
            raise _differs(listed - found, found - listed)
        (into / MANIFEST_FILE).write_bytes(raw)
        for file in manifest.files:
            self._copy(root, file, into / file.path)
        return manifest

    def _small(self, root: str, path: str) -> bytes:
        content = bytearray()
        with self._artifacts.open(root, path) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > MANIFEST_MAX_BYTES:
                    raise TooLarge(f"{path} is larger than {MANIFEST_MAX_BYTES} bytes")
        return bytes(content)

    def _copy(self, root: str, file: BundleFile, target: Path) -> None:
        """Copy one file while hashing it; raise Invalid naming it when it is not what the manifest says."""
        target.parent.mkdir(parents=True, exist_ok=True)
        hasher, size = hashlib.sha256(), 0
        with self._artifacts.open(root, file.path) as chunks, target.open("wb") as out:
            for chunk in chunks:
                size += len(chunk)
                if size > file.size_bytes:
                    break
                hasher.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if size != file.size_bytes or f"sha256:{hasher.hexdigest()}" != file.digest:
            error = FieldError(path=file.path, message="its bytes are not those that the manifest lists")
            raise Invalid(f"{file.path} differs from the bundle's manifest", errors=(error,))


def _parse(raw: bytes, digest: str) -> BundleManifest:
    try:
        manifest = BundleManifest.model_validate(json.loads(raw))
    except (ValueError, ValidationError) as exc:
        error = FieldError(path=MANIFEST_FILE, message="is not a bundle manifest")
        raise Invalid(f"{MANIFEST_FILE} cannot be read as a bundle manifest", errors=(error,)) from exc
    found = str(manifest_digest(manifest))
    if found != digest:
        error = FieldError(path="digest", message=f"the manifest's digest is {found}")
        raise Invalid(f"the bundle's manifest has another digest than {digest}", errors=(error,))
    return manifest


def _check_files(manifest: BundleManifest, max_bytes: int, *, pickled: bool) -> None:
    found = []
    for file in manifest.files:
        parts = PurePosixPath(file.path)
        safe = file.path and not parts.is_absolute() and ".." not in parts.parts and "\\" not in file.path
        if not safe or str(parts) != file.path or file.path == MANIFEST_FILE:
            found.append(FieldError(path=file.path, message="is not a path inside of the bundle"))
        elif parts.suffix.lower() in PICKLES and not pickled:
            found.append(FieldError(path=file.path, message="runs code when it is loaded; use skops or ONNX"))
    if len({file.path for file in manifest.files}) != len(manifest.files):
        found.append(FieldError(path="files", message="a path is listed twice"))
    if found:
        raise Invalid("the bundle lists files that are refused", errors=tuple(found))
    total = sum(file.size_bytes for file in manifest.files)
    if len(manifest.files) > MAX_FILES or total > max_bytes:
        raise TooLarge(f"the bundle has {len(manifest.files)} files and {total} bytes; {max_bytes} bytes are allowed")


def _differs(missing: set[str], extra: set[str]) -> Invalid:
    errors = [FieldError(path=path, message="is listed in the manifest and missing") for path in sorted(missing)]
    errors += [FieldError(path=path, message="is not listed in the manifest") for path in sorted(extra)]
    return Invalid("the bundle's files are not those of its manifest", errors=tuple(errors[:50]))


def _sha256(path: Path) -> str | None:
    """Return the digest of a file, or None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None
