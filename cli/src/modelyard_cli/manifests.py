"""Manifests on their way in: YAML to the contract's classes, relative paths to uploaded dataset versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from modelyard_client import TrainingClient
from modelyard_common.errors import Invalid, NotFound
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel, ManifestError, parse_manifest
from modelyard_contracts.problem import FieldError

__all__ = ["read_manifests", "with_uploaded_data"]

_REMOTE = ("dataset://", "s3://", "gs://", "abfs://", "https://", "http://", "file:")


def read_manifests(path: Path) -> list[tuple[ManagedModel, dict[str, Any]]]:
    """Return the manifests in a YAML file, each with the document that it was read from.

    Raises:
        NotFound: there is no such file.
        Invalid: it is not YAML, or a manifest has wrong fields; names each.
    """
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
    found = []
    for document in documents:
        try:
            found.append((parse_manifest(document), document))
        except ManifestError as exc:
            raise Invalid(f"{path} is not a manifest that can be applied", errors=exc.errors) from exc
    return found


def with_uploaded_data(manifest: ManagedModel, folder: Path, training: TrainingClient) -> tuple[ManagedModel, str]:
    """Return the manifest with its data uploaded and named by digest, and a sentence about it.

    Args:
        folder: relative paths in the manifest start here.

    Raises:
        Invalid: the file is not there, or is neither Parquet nor CSV.
    """
    uri = manifest.spec.data.source.uri
    if uri.startswith(_REMOTE):
        return manifest, ""
    path = folder / uri
    if not path.is_file():
        error = FieldError(path="spec.data.source.uri", message=f"there is no file {path}")
        raise Invalid(f"{manifest.metadata.name}: its data cannot be read", errors=(error,))
    if path.suffix.lower() not in (".parquet", ".csv"):
        error = FieldError(path="spec.data.source.uri", message=f"{path.name} is neither .parquet nor .csv")
        raise Invalid(f"{manifest.metadata.name}: its data cannot be read", errors=(error,))
    dataset = training.upload_dataset(path, name=path.name)
    document = manifest.to_wire()
    document["spec"]["data"]["source"]["uri"] = f"dataset://{dataset.digest}"
    return parse_manifest(document), f"{path.name}: {dataset.rows} rows, {dataset.digest}"
