"""One row of a twin by itself: what it costs is not its arithmetic, but to look names up and to make tensors for it.

So a row goes through memory that the session was told of beforehand; and that of a linear model, whose twin says what
it is, goes through no session at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard_bundle.runtimes.base import NUMBERS_INPUT, Predicted

__all__ = ["LINEAR", "BoundRow", "Linear", "LinearRow", "linear_row"]

LINEAR = "modelyard.linear"
"""A twin's metadata under this name is ``Linear`` as JSON."""
_BUFFERS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
"""What a session can write into memory of ours; texts it cannot."""
_PROBES = 16
_CLOSE = 1e-4
"""As close as a twin has to be to its estimator."""


class Linear(msgspec.Struct, frozen=True):
    """A linear model: ``(row - offsets) . coefficients + intercept``, by itself or as the log-odds of the second class.

    Attributes:
        classes: of a classifier, two; none of a regression.
    """

    offsets: list[float]
    coefficients: list[float]
    intercept: float
    classes: list[int] = []


class LinearRow:
    """Answers one row of a linear model."""

    def __init__(self, linear: Linear) -> None:
        self._offsets = np.array(linear.offsets)
        self._coefficients = np.array(linear.coefficients)
        self._intercept = linear.intercept
        self._classes = linear.classes

    def __call__(self, numbers: npt.NDArray[np.float32]) -> Predicted:
        """Return what the session answers to one row, shape (1, features), up to rounding.

        Raises:
            ValueError: the row is not as long as it has to be.
        """
        said = float((numbers[0] - self._offsets).dot(self._coefficients)) + self._intercept
        if not self._classes:
            return Predicted(np.array((said,), np.float32).astype(np.float64), None)
        # So that what is large stays what can be computed.
        chance = 1 / (1 + math.exp(-said)) if said >= 0 else (odds := math.exp(said)) / (1 + odds)
        label = self._classes[said > 0]
        return Predicted(np.array((label,), np.int64), np.array(((1 - chance, chance),), np.float32))


class BoundRow:
    """Runs one row in memory that a session was told of beforehand.

    Args:
        shapes: of the outputs, for one row.

    Attributes:
        found: the outputs for the row that was run last.
    """

    def __init__(self, session: Any, width: int, shapes: Sequence[Sequence[int]]) -> None:
        from onnxruntime import OrtValue  # noqa: PLC0415  # loaded by whoever made the session, set up as it wants it

        self._run, self._binding = session.run_with_iobinding, session.io_binding()
        self._row = np.zeros((1, width), dtype=np.float32)
        self._binding.bind_ortvalue_input(NUMBERS_INPUT, OrtValue.ortvalue_from_numpy(self._row))  # not a copy
        found: list[npt.NDArray[Any]] = []
        for entry, shape in zip(session.get_outputs(), shapes, strict=True):
            found.append(np.zeros(shape, dtype=_BUFFERS[entry.type]))
            self._binding.bind_ortvalue_output(entry.name, OrtValue.ortvalue_from_numpy(found[-1]))
        self.found = tuple(found)

    @classmethod
    def of(cls, session: Any) -> BoundRow | None:
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


def linear_row(session: Any, task: str) -> LinearRow | None:
    """Return what answers a row of this session where it is a linear model that says so; None otherwise.

    What it says is held against what the session answers to some rows.
    """
    said = session.get_modelmeta().custom_metadata_map.get(LINEAR)
    if said is None:
        return None
    try:
        linear = msgspec.json.decode(said, type=Linear)
        if len(linear.classes) != (2 if task == "classification" else 0):
            return None
        if [(entry.name, entry.shape[-1]) for entry in session.get_inputs()] != [(NUMBERS_INPUT, len(linear.offsets))]:
            return None  # the session would raise whatever it likes
        row = LinearRow(linear)
        # All of one size and no two alike; numpy's generators would be loaded for this alone, 3 MiB of them.
        spread = 3 * np.sin(np.arange(1, _PROBES * len(linear.offsets) + 1) ** 2).reshape(_PROBES, -1)
        steps = spread / (math.hypot(*linear.coefficients) or 1.0)  # by which the log-odds are some 2
        probes = (np.array(linear.offsets) + steps).astype(np.float32)
        told = session.run(None, {NUMBERS_INPUT: probes})
        return row if all(_agrees(row(probes[[place]]), told, place) for place in range(_PROBES)) else None
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None


def _agrees(one: Predicted, told: Sequence[Any], place: int) -> bool:
    if one.probabilities is None:
        value, expected = float(one.labels[0]), float(np.ravel(told[0])[place])
        return abs(value - expected) <= _CLOSE * max(1.0, abs(expected))
    chances = np.asarray(told[1])[place]
    is_label = one.labels[0] == told[0][place] or abs(chances[0] - chances[1]) <= _CLOSE  # at even chances either is
    return bool(is_label and np.allclose(one.probabilities[0], chances, atol=_CLOSE))
