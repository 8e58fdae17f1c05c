"""Bundles for the runtimes: models without a twin, and models that misbehave when a row tells them to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inference_fakes import make_bundle
from modelyard_bundle.manifest import list_files, read_manifest, write_manifest
from modelyard_bundle.packaging import Packed
from modelyard_inference.adapters.isolated import IsolatedRuntimes
from modelyard_inference.adapters.isolated_process import SpawnedProcess
from modelyard_inference.settings import environment_beside
from modelyard_inference_runtime.settings import RuntimeSettings

__all__ = ["an_isolation", "changed", "misbehaving", "without_twin"]


def changed(bundle: Packed, folder: Path, change: Callable[[Path], None], **fields: Any) -> Packed:
    """Return a copy of a bundle in which something else stands, and whose every byte verifies."""
    shutil.copytree(bundle.folder, folder)
    change(folder)
    manifest = read_manifest(folder).model_copy(update={"files": list_files(folder)} | fields)
    return Packed(folder, write_manifest(folder, manifest), manifest)


def without_twin(folder: Path, *, seed: int = 3, model: str = "power") -> Packed:
    """Return a bundle that only scikit-learn runs."""
    made = make_bundle(folder.with_name(f"{folder.name}-twin"), seed=seed, model=model)
    return changed(made, folder, lambda copy: (copy / "model.onnx").unlink(), runtimes=("sklearn",))


_CODE = """
import ctypes, time
import numpy as np

HELD = []


class Model:
    def predict(self, frame, params=None):
        load = frame["load"].to_numpy()
        if (load == 666).any():
            ctypes.string_at(0)
        if (load == 777).any():
            time.sleep(3600)
        if (load == 888).any():
            raise ValueError("the secret is 888")
        if (load == 999).any():
            while True:
                HELD.append(bytearray(8_000_000))
        return np.where(load > 0, 0.75, 0.25)


def _load_pyfunc(path):
    return Model()
"""


def misbehaving(bundle: Packed, folder: Path, **fields: Any) -> Packed:
    """Return a pyfunc bundle whose model crashes, hangs, raises or leaks when ``load`` is 666, 777, 888 or 999."""

    def change(copy: Path) -> None:
        for name in ("model.onnx", "model.skops"):
            (copy / name).unlink()
        (copy / "code").mkdir()
        (copy / "code" / "misbehaving_model.py").write_text(_CODE)
        flavor = {"loader_module": "misbehaving_model", "code": "code", "python_version": "3.11"}
        (copy / "MLmodel").write_text(json.dumps({"flavors": {"python_function": flavor}}))
        (copy / "pyfunc.json").write_text('{"form": "positive"}')
        probe = json.loads((copy / "probe.json").read_text())
        chances = [0.75 if row["load"] > 0 else 0.25 for row in probe["rows"]]
        probe |= {
            "predictions": [int(chance > 0.5) for chance in chances],
            "probabilities": [[1 - chance, chance] for chance in chances],
        }
        (copy / "probe.json").write_text(json.dumps(probe))

    return changed(bundle, folder, change, runtimes=("pyfunc",), **fields)


@contextmanager
def an_isolation(*, call_s: float = 10.0, **options: str) -> Iterator[tuple[IsolatedRuntimes, SpawnedProcess]]:
    """Give runtimes in processes beside, kept by a task as in the server."""
    told = {"pyfunc": "true", "log_level": "error"} | options
    assert told.keys() <= RuntimeSettings.model_fields.keys(), "the runtime has no such setting"
    host = SpawnedProcess(told, environment_beside())
    isolated = IsolatedRuntimes(host, call_s=call_s)
    task = isolated.task()
    task.start()
    try:
        yield isolated, host
    finally:
        task.stop()
        assert task.join(10)
        isolated.close()
