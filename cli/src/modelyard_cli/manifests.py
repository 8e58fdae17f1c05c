"""Manifests on their way in: YAML to the contract's classes, relative paths to uploaded dataset versions."""

from __future__ import annotations

from pathlib import Path

import yaml
from modelyard_client import RegistryClient, TrainingClient
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel, ManifestError, parse_manifest
from modelyard_contracts.problem import FieldError

__all__ = ["read_manifests", "with_known_data", "with_uploaded_data"]

_REMOTE = ("dataset://", "s3://", "gs://", "abfs://", "https://", "http://", "file:")


def read_manifests(path: Path) -> list[tuple[ManagedModel, Path]]:
    """Return the manifests in a YAML file, or in all YAML files of a folder, each with the folder that it lies in.

    Raises:
        NotFound: there is no such file.
        Invalid: it is not YAML, or a manifest has wrong fields; names each.
    """
    if not path.is_dir():
        return [(manifest, path.absolute().parent) for manifest in _of_file(path)]
    files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
    if not files:
        raise Invalid(f"{path} holds no manifest: no file of it ends with .yaml")
    return [(manifest, path.absolute()) for file in files for manifest in _of_file(file)]


def _of_file(path: Path) -> list[ManagedModel]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise NotFound(f"there is no file {path}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise Invalid(f"{path} cannot be read: {exc}") from exc
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise Invalid(f"{path}{where}: not YAML ({getattr(exc, 'problem', None) or 'cannot be parsed'})") from exc
    if not documents:
        raise Invalid(f"{path} holds no manifest")
    try:
        return [parse_manifest(document) for document in documents]
    except ManifestError as exc:
        raise Invalid(f"{path} is not a manifest that can be applied", errors=exc.errors) from exc


def with_uploaded_data(manifest: ManagedModel, folder: Path, training: TrainingClient) -> tuple[ManagedModel, str]:
    """Return the manifest with its data uploaded and named by digest, and a sentence about it.

    Args:
        folder: relative paths in the manifest start here.

    Raises:
        Invalid: the file is not there, or is neither Parquet nor CSV.
    """
    path = _local(manifest, folder)
    if path is None:
        return manifest, ""
    dataset = training.upload_dataset(path, name=path.name)
    return _with_source(manifest, f"dataset://{dataset.digest}"), f"{path.name}: {dataset.rows} rows, {dataset.digest}"


def with_known_data(manifest: ManagedModel, folder: Path, registry: RegistryClient) -> tuple[ManagedModel, str]:
    """Return the manifest with the data that the registry has for the model, and a sentence about it.

    A dry run uploads nothing, so that it cannot know the digest over the rows of a file.

    Args:
        folder: relative paths in the manifest start here.

    Raises:
        Invalid: the file is not there, or is neither Parquet nor CSV.
    """
    path = _local(manifest, folder)
    if path is None:
        return manifest, ""
    try:
        known = registry.model(manifest.metadata.name).spec["data"]["source"]["uri"]
    except NotFound:
        return manifest, ""
    return _with_source(manifest, known), f"{path.name} is not uploaded by a dry run: taken as the rows of {known}"


def _local(manifest: ManagedModel, folder: Path) -> Path | None:
    """Return the file that a manifest names as its data; None when it names no file of this machine."""
    uri = manifest.spec.data.source.uri
    if uri.startswith(_REMOTE):
        return None
    path = folder / uri
    if not path.is_file():
        error = FieldError(path="spec.data.source.uri", message=f"there is no file {path}")
        raise Invalid(f"{manifest.metadata.name}: its data cannot be read", errors=(error,))
    if path.suffix.lower() not in (".parquet", ".csv"):
        error = FieldError(path="spec.data.source.uri", message=f"{path.name} is neither .parquet nor .csv")
        raise Invalid(f"{manifest.metadata.name}: its data cannot be read", errors=(error,))
    return path


def _with_source(manifest: ManagedModel, uri: str) -> ManagedModel:
    document = manifest.to_wire()
    document["spec"]["data"]["source"]["uri"] = uri
    return parse_manifest(document)
