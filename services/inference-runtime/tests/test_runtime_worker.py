"""The process of one version: what it imports, and what it answers all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from modelyard_bundle.isolated import ASK, OK, PREDICT, Peer, ask_of, predicted_of
from modelyard_bundle.loading import load
from modelyard_bundle.packaging import Packed, pack
from modelyard_bundle.runtimes.sklearn import as_frame
from modelyard_bundle.signature import Columns
from modelyard_common.frames import read_frame
from modelyard_contracts.bundle_v1 import Column, Lineage, Signature
from modelyard_inference_runtime.settings import worker_environment
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at what a process has mapped"),
]


def columns(kinds: tuple[Column, ...]) -> Columns:
    g = np.random.default_rng(1)
    return {
        column.name: g.choice(["mon", "tue"], 50).astype(object)
        if column.type == "category"
        else g.normal(size=50).astype(np.float32)
        for column in kinds
    }


def made(folder: Path, model: Any, kinds: tuple[Column, ...]) -> Packed:
    shape = Signature(task="classification", features=kinds, target="up", classes=(0, 1), positive_class=1)
    sample = columns(kinds)
    return pack(
        folder,
        model="power",
        estimator=model.fit(as_frame(shape, sample), (sample["load"] > 0).astype(int)),
        signature=shape,
        sample=sample,
        lineage=Lineage(run="run-1", dataset="sha256:" + "d" * 64, estimator="logistic_regression"),
        baseline_json="{}",
        metrics=(),
        created=datetime(2026, 3, 1, tzinfo=UTC),
    )


@contextmanager
def worker(bundle: Packed, address: Path) -> Iterator[int]:
    words = (str(bundle.folder), str(bundle.digest), "sklearn", str(address), "0", str(2**20))
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "modelyard_inference_runtime.worker", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(worker_environment(1)),
    ) as process:
        try:
            assert read_frame(cast(Any, process.stdout).read, 4096) == (OK, b"")
            yield process.pid
        finally:
            process.kill()


def of_numbers(folder: Path) -> Packed:
    return made(folder, LogisticRegression(), (Column(name="load", type="number"), Column(name="price", type="number")))


def of_categories(folder: Path) -> Packed:
    kinds = (Column(name="load", type="number"), Column(name="day", type="category"))
    encoder = ColumnTransformer([("days", OneHotEncoder(), [1])], remainder="passthrough")
    return made(folder, make_pipeline(encoder, LogisticRegression()), kinds)


@pytest.mark.parametrize(("make", "with_pandas"), [(of_numbers, False), (of_categories, True)])
def test_only_a_model_that_takes_frames_has_pandas_in_its_process(
    make: Callable[[Path], Packed], with_pandas: bool, tmp_path: Path
) -> None:
    bundle = make(tmp_path / "bundle")
    sample = columns(bundle.manifest.signature.features)
    expected = load(bundle.folder, bundle.manifest, prefer="sklearn").predict(sample)

    with worker(bundle, tmp_path / "it.sock") as pid:
        peer = Peer(tmp_path / "it.sock")
        answer = predicted_of(peer.call(ASK, ask_of(PREDICT, sample), 30))
        peer.close()
        mapped = Path(f"/proc/{pid}/maps").read_text()

    assert answer.labels.tolist() == expected.labels.tolist()
    assert "/sklearn/" in mapped
    assert ("/pandas/" in mapped) == with_pandas
