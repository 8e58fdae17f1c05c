"""ONNX Runtime: one thread a session, since the server runs many requests side by side.

Its reports to its maker are off: from 1.29 on it makes an identifier of the machine, and where nothing leads out, the
look-up of where to send them holds a process up for seconds when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import ONNX_FILE, Predicted
from modelyard_bundle.signature import Columns, Table, numeric_features, text_features

# Read while it is imported, once for the process; its own call for this comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["NUMBERS_INPUT", "ONNX_FILE", "OnnxPart", "OnnxRuntime"]

NUMBERS_INPUT = "numbers"
"""All numeric features in one matrix [n, k]; each category is an input of its own, ``text_<position>``, [n, 1]."""


class _Feed:
    """Lays columns out as a twin takes them.

    Attributes:
        shapes: of the inputs, ``name[width]``.
    """

    def __init__(self, signature: Signature) -> None:
        self._numbers = numeric_features(signature)
        self._texts = text_features(signature)
        self.shapes = [f"{NUMBERS_INPUT}[{len(self._numbers)}]"] if self._numbers else []
        self.shapes += [f"{_text_input(position)}[1]" for position, _ in enumerate(self._texts)]

    def __call__(self, columns: Columns) -> dict[str, Any]:
        """Return the inputs by name."""
        feed: dict[str, Any] = {}
        if self._numbers:
            feed[NUMBERS_INPUT] = (
                columns.numbers
                if isinstance(columns, Table)
                else np.stack([columns[name] for name in self._numbers], axis=1)
            )
        for position, name in enumerate(self._texts):
            feed[_text_input(position)] = columns[name].reshape(-1, 1)
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


_BUFFERS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
"""What a session can write into memory of ours; texts it cannot."""


class _Lone:
    """Runs one row in memory that a session was told of beforehand.

    A small model costs less than to look names up and to make tensors and arrays for it. Here only copies are left.

    Args:
        shapes: of the outputs, for one row.

    Attributes:
        found: the outputs for the row that was run last.
    """

    def __init__(self, session: onnxruntime.InferenceSession, width: int, shapes: Sequence[Sequence[int]]) -> None:
        self._run, self._binding = session.run_with_iobinding, session.io_binding()
        self._row = np.zeros((1, width), dtype=np.float32)
        of_numpy = onnxruntime.OrtValue.ortvalue_from_numpy  # its memory, not a copy
        self._binding.bind_ortvalue_input(NUMBERS_INPUT, of_numpy(self._row))
        found: list[npt.NDArray[Any]] = []
        for entry, shape in zip(session.get_outputs(), shapes, strict=True):
            found.append(np.zeros(shape, dtype=_BUFFERS[entry.type]))
            self._binding.bind_ortvalue_output(entry.name, of_numpy(found[-1]))
        self.found = tuple(found)

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession) -> _Lone | None:
        """Return one for a session; None where it takes more than numbers, or what it gives has no known size."""
        taken, given = session.get_inputs(), session.get_outputs()
        shapes = [[1, *entry.shape[1:]] for entry in given if entry.shape and entry.type in _BUFFERS]
        if len(shapes) < len(given) or not all(isinstance(size, int) for shape in shapes for size in shape):
            return None
        if [entry.name for entry in taken] != [NUMBERS_INPUT] or not isinstance(taken[0].shape[-1], int):
            return None
        return cls(session, taken[0].shape[-1], shapes)

    def run(self, numbers: npt.NDArray[np.float32]) -> None:
        """Run one row, shape (1, features)."""
        np.copyto(self._row, numbers)
        self._run(self._binding)


class OnnxRuntime:
    """Runs the ONNX twin."""

    name = "onnx"
    blocking = False

    def __init__(self, folder: Path, signature: Signature) -> None:
        self._session = _session((folder / ONNX_FILE).read_bytes())
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self._is_classification = signature.task == "classification"
        self._feed = _Feed(signature)
        wanted = self._feed.shapes
        taken = [f"{entry.name}[{entry.shape[-1] if entry.shape else ''}]" for entry in self._session.get_inputs()]
        if sorted(taken) != sorted(wanted):
            raise Invalid(f"{ONNX_FILE}: takes {', '.join(taken)}, and the signature has {', '.join(wanted)}")
        lone = _Lone.of(self._session)
        self._free = [] if lone is None else [lone]
        """For one row; nothing while a thread runs one in it."""

    def predict(self, columns: Columns) -> Predicted:
        """Return answers for columns that the signature has checked."""
        if self._free and isinstance(columns, Table) and len(columns.numbers) == 1:
            try:
                lone = self._free.pop()
            except IndexError:  # another thread was quicker
                pass
            else:
                try:
                    lone.run(columns.numbers)
                    return self._said(*lone.found)
                finally:
                    self._free.append(lone)
        return self._said(*self._session.run(self._outputs, self._feed(columns)))

    def _said(self, first: Any, second: Any = None) -> Predicted:
        """Return outputs as answers; copies, since the memory of one row is written over by the next."""
        if self._is_classification:
            return Predicted(np.array(first), np.array(second, dtype=np.float32))
        return Predicted(np.array(first, dtype=np.float64).reshape(-1), None)


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


def _text_input(position: int) -> str:
    return f"text_{position}"
