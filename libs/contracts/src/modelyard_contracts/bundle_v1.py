"""The bundle's manifest and its signature: what a training run hands over.

The SHA-256 of the manifest's canonical JSON is the version's identity; the manifest holds the SHA-256 of every
other file, so that one digest stands for every byte.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from modelyard_contracts.base import UtcTime, View
from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.refs import Digest, DigestText, ModelName

__all__ = [
    "MANIFEST_FILE",
    "BundleFile",
    "BundleManifest",
    "Column",
    "Lineage",
    "RemoteServer",
    "Signature",
    "SliceMetrics",
    "manifest_digest",
]

MANIFEST_FILE = "modelyard.json"


def _of_a_file(path: str) -> str:
    if "\0" in path:  # no system has such a file, and whoever looks for it gets an error of a kind of its own
        raise ValueError("a path holds no NUL")
    return path


class Column(View):
    """A feature or an output of a model."""

    name: str
    type: Literal["number", "integer", "category", "boolean", "time"]
    """``time``: points in time, in UTC. Datasets have such columns; a feature is never one."""
    required: bool = True
    min: float | None = None
    max: float | None = None
    categories: tuple[str | int, ...] | None = None
    """The categories seen in training; text or integers. Unseen ones are served and counted."""


class Signature(View):
    """What a model takes and gives."""

    task: Literal["classification", "regression", "anomaly"]
    features: tuple[Column, ...]
    target: str
    classes: tuple[str | int | bool, ...] = ()
    """Labels, in the order of the probability columns; empty unless the task is classification."""
    positive_class: str | int | bool | None = None


class BundleFile(View):
    """One file of a bundle."""

    path: Annotated[str, AfterValidator(_of_a_file)]
    digest: DigestText
    size_bytes: int


class SliceMetrics(View):
    """Metrics on some rows."""

    slice: str
    rows: int
    metrics: dict[str, float]


class Lineage(View):
    """Which data, code, environment and parameters made a version."""

    run: str
    dataset: DigestText
    """Over all rows that the run read, labelled ones included."""
    source: DigestText | None = None
    """The dataset version of the manifest."""
    data_from: UtcTime | None = None
    data_until: UtcTime | None = None
    """The newest event time that it learned from."""
    label_seq: int = 0
    rows: int = 0
    estimator: str
    params: dict[str, str | int | float | bool | None] = {}
    seed: int = 0
    code: str = ""
    """Version of the trainer, and git commit when known."""
    environment: dict[str, str] = {}
    """Python and the libraries that fitted the model, with their versions."""
    training_digest: DigestText | None = None


class RemoteServer(View):
    """A server of somebody else that runs the model: its answers pass through ours, and nothing else of it does."""

    url: str = Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$", max_length=500)
    """Where it is, without credentials. Only servers that the operator has named are asked."""
    protocol: Literal["open-inference", "mlflow-scoring"]
    answers: Literal["labels", "probabilities", "positive", "values", "outliers"]
    """Classes; a probability of each class; of the last of two classes; numbers; -1 for an outlier, 1 for the rest."""
    model: str = Field("", max_length=250)
    """Its name there; only for the Open Inference Protocol."""
    version: str = Field("", max_length=100)
    tensors: Literal["columns", "matrix"] = "columns"
    """For the Open Inference Protocol: one tensor a feature, or all numbers in one, in the signature's order."""
    input: str = Field("input", max_length=250)
    """The name of that one tensor."""
    output: str = Field("", max_length=250)
    """The output that is the answer; empty: the first one."""


class BundleManifest(View):
    """The list of what a bundle holds; written as ``modelyard.json``."""

    format: Literal["modelyard.bundle/v1"] = "modelyard.bundle/v1"
    model: ModelName
    created: UtcTime
    signature: Signature
    runtimes: tuple[Literal["onnx", "sklearn", "pyfunc", "remote"], ...]
    """In the order of preference; the ONNX twin is listed only where parity held."""
    parity: str = ""
    """What the comparison of the ONNX twin with the estimator found, in words."""
    lineage: Lineage
    metrics: tuple[SliceMetrics, ...] = ()
    files: tuple[BundleFile, ...]
    remote: RemoteServer | None = None
    """Where the ``remote`` runtime asks."""


def manifest_digest(manifest: BundleManifest) -> Digest:
    """Return the identity of a bundle: SHA-256 over the canonical JSON of its manifest.

    Fields that hold their default are left out, so that a field added to the manifest later does not
    change the digest of a bundle that was written without it. Law: the order of the files is irrelevant.
    """
    document = manifest.model_dump(mode="json", exclude_defaults=True)
    document["files"].sort(key=lambda file: file["path"])
    return Digest(hashlib.sha256(canonical_json(document)).hexdigest())
