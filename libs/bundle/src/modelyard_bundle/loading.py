"""Choosing the runtime of a verified bundle. Each is imported when it is chosen: who runs one needs no other."""

from __future__ import annotations

from pathlib import Path

from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_bundle.runtimes.base import Runtime

__all__ = ["load"]


def load(folder: Path, manifest: BundleManifest, *, prefer: str | None = None, code: bool = False) -> Runtime:
    """Return the runtime of a bundle that was verified.

    Args:
        prefer: take this one if the bundle has it.
        code: whether models that are code may be loaded into this process.

    Raises:
        Invalid: the bundle has no runtime that is built, or a damaged one.
    """
    names = [prefer] if prefer in manifest.runtimes else list(manifest.runtimes)
    for name in names:
        if name == "onnx":
            from modelyard_bundle.runtimes.onnx import OnnxRuntime  # noqa: PLC0415  # a process loads what it runs

            return OnnxRuntime(folder, manifest.signature)
        if name == "sklearn":
            from modelyard_bundle.runtimes.sklearn import SklearnRuntime  # noqa: PLC0415

            return SklearnRuntime(folder, manifest.signature)
        if name == "pyfunc" and code:
            from modelyard_bundle.runtimes.pyfunc import PyfuncRuntime  # noqa: PLC0415

            return PyfuncRuntime(folder, manifest.signature)
    if "pyfunc" in names:
        raise Invalid("a pyfunc model is code, and is loaded only in the inference runtime's own processes")
    raise Invalid(f"no runtime for {', '.join(manifest.runtimes) or 'this bundle'} runs in this process")
