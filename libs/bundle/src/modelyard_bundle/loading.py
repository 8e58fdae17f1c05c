"""Choosing the runtime of a verified bundle."""

from __future__ import annotations

from pathlib import Path

from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_bundle.runtimes.base import Runtime
from modelyard_bundle.runtimes.onnx import OnnxRuntime
from modelyard_bundle.runtimes.pyfunc import PyfuncRuntime
from modelyard_bundle.runtimes.sklearn import SklearnRuntime

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
            return OnnxRuntime(folder, manifest.signature)
        if name == "sklearn":
            return SklearnRuntime(folder, manifest.signature)
        if name == "pyfunc" and code:
            return PyfuncRuntime(folder, manifest.signature)
    if "pyfunc" in names:
        raise Invalid("a pyfunc model is code, and is loaded only in the inference runtime's own processes")
    raise Invalid(f"no runtime for {', '.join(manifest.runtimes) or 'this bundle'} runs in this process")
