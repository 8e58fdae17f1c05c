"""ONNX Runtime: one thread a session, since the server runs many requests side by side.

Its reports to its maker are off: from 1.29 on it makes an identifier of the machine, and where nothing leads out, the
look-up of where to send them holds a process up for seconds when it ends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import NUMBERS_INPUT, ONNX_FILE, Predicted, text_input
from modelyard_bundle.runtimes.onnx_rows import BoundRow, linear_row
from modelyard_bundle.signature import Columns, Table, matrix_of, numeric_features, text_features

# Read while it is imported, once for the process; its own call for this comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["OnnxPart", "OnnxRuntime"]


_CHECKED_ROWS = 64
"""A row of a linear model takes microseconds."""
_CHECKED_RUNS = 4
"""The graph is the same there as for many rows, and may take as long for one: nearest neighbours do."""


class _Feed:
    """Lays columns out as a twin takes them.

    Attributes:
        shapes: of the inputs, ``name[width]``.
    """

    def __init__(self, signature: Signature) -> None:
        self._numbers = numeric_features(signature)
        self._texts = text_features(signature)
        self.shapes = [f"{NUMBERS_INPUT}[{len(self._numbers)}]"] if self._numbers else []
        self.shapes += [f"{text_input(position)}[1]" for position, _ in enumerate(self._texts)]

    def __call__(self, columns: Columns) -> dict[str, Any]:
        """Return the inputs by name."""
        feed: dict[str, Any] = {}
        if self._numbers:
            feed[NUMBERS_INPUT] = matrix_of(columns, self._numbers)
        for position, name in enumerate(self._texts):
            feed[text_input(position)] = columns[name].reshape(-1, 1)
        return feed


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # malloc is quicker for small tensors, and gives back what large ones took
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime has no common base of its errors
        raise Invalid(f"{ONNX_FILE}: ONNX Runtime does not load it ({type(exc).__name__})") from exc


class OnnxRuntime:
    """Runs the ONNX twin."""

    name = "onnx"
    blocking = False

    def __init__(self, folder: Path, signature: Signature) -> None:
        self._session = _session((folder / ONNX_FILE).read_bytes())
        self._is_classification = signature.task == "classification"
        outputs = [entry.name for entry in self._session.get_outputs()]
        self._outputs = outputs[: 2 if self._is_classification else 1]
        self._feed = _Feed(signature)
        wanted = self._feed.shapes
        taken = [f"{entry.name}[{entry.shape[-1] if entry.shape else ''}]" for entry in self._session.get_inputs()]
        if sorted(taken) != sorted(wanted):
            raise Invalid(f"{ONNX_FILE}: takes {', '.join(taken)}, and the signature has {', '.join(wanted)}")
        self._linear = linear_row(self._session, task=signature.task)
        bound = None if self._linear is not None else BoundRow.of(self._session, self._outputs)
        self._free = [] if bound is None else [bound]
        """For one row; nothing while a thread runs one in it."""

    @property
    def rows_alone(self) -> int:
        """How many rows to ask by themselves where its answers are checked; 0 if it has no other way for them."""
        if self._linear is not None:
            return _CHECKED_ROWS
        return _CHECKED_RUNS if self._free else 0

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked."""
        if isinstance(columns, Table) and len(columns.numbers) == 1:
            if self._linear is not None:
                return self._linear(columns.numbers)
            if self._free:
                try:
                    row = self._free.pop()
                except IndexError:  # another thread was quicker
                    pass
                else:
                    try:
                        return self._said(*row.run(columns.numbers))
                    finally:
                        self._free.append(row)
        return self._said(*self._session.run(self._outputs, self._feed(columns)))

    def _said(self, first: Any, second: Any = None) -> Predicted:
        """Return outputs as answers. Labels of some models have an axis too many, as values of all have."""
        if self._is_classification:
            return Predicted(np.asarray(first).reshape(-1), np.asarray(second, dtype=np.float32))
        return Predicted(np.asarray(first, dtype=np.float64).reshape(-1), None)


class OnnxPart:
    """Runs what leads to one tensor inside of a twin.

    Args:
        model: a graph with the twin's inputs, whose one output is that tensor.
    """

    def __init__(self, model: bytes, signature: Signature) -> None:
        self._session = _session(model)
        self._feed = _Feed(signature)

    def values(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Return the tensor, one row a row."""
        taken = {entry.name for entry in self._session.get_inputs()}
        feed = {name: values for name, values in self._feed(columns).items() if name in taken}
        (found,) = self._session.run(None, feed)
        return np.asarray(found, dtype=np.float32)
