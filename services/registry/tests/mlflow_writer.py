"""Runs as a process: fits a small model, logs it to MLflow as a bundle, prints run id, digest and what it predicts."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
from modelyard_contracts.bundle_v1 import BundleFile, BundleManifest, Column, Lineage, Signature, manifest_digest
from sklearn.linear_model import LogisticRegression


def main(url: str, name: str) -> None:
    mlflow.set_tracking_uri(url)
    x = np.arange(40.0).reshape(-1, 1)
    model = LogisticRegression().fit(x, x[:, 0] > 20)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundle"
        mlflow.sklearn.save_model(
            model, str(root), serialization_format="skops", pip_requirements=["scikit-learn", "skops"]
        )
        manifest = write_manifest(root, name)
        mlflow.set_experiment(name)
        with mlflow.start_run() as run:
            mlflow.log_artifacts(str(root), "bundle")
    found = {"run": run.info.run_id, "digest": str(manifest_digest(manifest)), "says": model.predict(x).tolist()}
    sys.stdout.write(json.dumps(found) + "\n")


def write_manifest(root: Path, name: str) -> BundleManifest:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    manifest = BundleManifest(
        model=name,
        created="2026-01-02T00:00:00Z",
        signature=Signature(task="classification", features=(Column(name="x", type="number"),), target="up"),
        runtimes=("sklearn",),
        lineage=Lineage(run="run", dataset="sha256:" + "0" * 64, estimator="logistic_regression"),
        files=tuple(
            BundleFile(
                path=path.relative_to(root).as_posix(),
                digest="sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
                size_bytes=path.stat().st_size,
            )
            for path in files
        ),
    )
    (root / "modelyard.json").write_text(manifest.model_dump_json(indent=1))
    return manifest


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
