"""A bundle in a folder: written once, identified by its manifest, verified byte by byte before it is used."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import MANIFEST_FILE, BundleFile, BundleManifest, manifest_digest
from modelyard_contracts.refs import Digest
from pydantic import ValidationError

__all__ = ["bundle_digest", "file_digest", "list_files", "read_manifest", "verify", "write_manifest"]

_CHUNK_BYTES = 1 << 20


def bundle_digest(manifest: BundleManifest) -> Digest:
    """Return the version's identity."""
    return manifest_digest(manifest)


def file_digest(path: Path) -> Digest:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return Digest(digest.hexdigest())


def list_files(folder: Path) -> tuple[BundleFile, ...]:
    """Return all files of a folder but the manifest, in the order of their paths. Links are refused."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise Invalid(f"{path.relative_to(folder)}: a bundle holds files, not links")
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative != MANIFEST_FILE:
            found.append(BundleFile(path=relative, digest=str(file_digest(path)), size_bytes=path.stat().st_size))
    return tuple(found)


def write_manifest(folder: Path, manifest: BundleManifest) -> Digest:
    """Write the manifest beside its files and return the bundle's digest."""
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(exclude_defaults=True, indent=1) + "\n")
    return bundle_digest(manifest)


def read_manifest(folder: Path) -> BundleManifest:
    """Return the manifest of a folder. Raise Invalid when there is none, or when it is not one."""
    try:
        return BundleManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError as exc:
        raise Invalid(f"{folder.name}: there is no {MANIFEST_FILE} in this bundle") from exc
    except OSError as exc:
        raise Invalid(f"{folder.name}: {MANIFEST_FILE} cannot be read") from exc
    except ValidationError as exc:
        raise Invalid(f"{MANIFEST_FILE} is not a bundle manifest: {exc.error_count()} wrong fields") from exc


def verify(folder: Path, digest: Digest | str) -> BundleManifest:
    """Return the manifest if every byte of the folder is what the digest stands for.

    Raises:
        Invalid: naming the file that is wrong, missing, or not in the manifest.
    """
    manifest = read_manifest(folder)
    if str(bundle_digest(manifest)) != str(digest):
        raise Invalid(f"{MANIFEST_FILE} is not the manifest of {digest}")
    for entry in manifest.files:
        _safe(entry.path)
        path = folder / entry.path
        if path.is_symlink() or not path.is_file():
            raise Invalid(f"{entry.path}: is in the manifest and not in the bundle")
        if str(file_digest(path)) != entry.digest:
            raise Invalid(f"{entry.path}: its bytes are not those that the manifest names")
    extra = {entry.path for entry in list_files(folder)} - {entry.path for entry in manifest.files}
    if extra:
        raise Invalid(f"{min(extra)}: is in the bundle and not in the manifest")
    return manifest


def _safe(path: str) -> None:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or not parts:
        raise Invalid(f"{path}: leads out of the bundle")
