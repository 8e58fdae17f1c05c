"""One row of a twin by itself: what it costs is not its arithmetic, but to look names up and to make tensors for it.

So a row goes through memory that the session was told of beforehand; and that of a linear model, whose twin says what
it is, goes through no session at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard_bundle.runtimes.base import NUMBERS_INPUT, TWIN_TOLERANCE, Predicted

__all__ = ["LINEAR", "BoundRow", "Linear", "LinearRow", "linear_row"]

LINEAR = "modelyard.linear"
"""A twin's metadata under this name is ``Linear`` as JSON."""
_WRITABLE = frozenset({"tensor(float)", "tensor(double)", "tensor(int64)"})
"""What a session can write into memory of ours; texts it cannot."""
_PROBES = 16
_LEAST = 1e-20
"""A coefficient that is smaller than this part of the largest is none: 32 bits have no row that would show it."""
_MOST_ROUNDING = 0.1
"""Log-odds that rounding excuses at most: by a few of them any chance would be excused."""


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
        """Return what the session answers to one row, up to rounding.

        Args:
            numbers: shape (1, features); that these are as many as the model has is known by the signature.
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
        outputs: the memory of each, by name.
    """

    def __init__(self, session: Any, width: int, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        from onnxruntime import OrtValue  # noqa: PLC0415  # loaded by whoever made the session, set up as it wants it

        self._run, self._binding = session.run_with_iobinding, session.io_binding()
        self._row = np.zeros((1, width), dtype=np.float32)
        self._binding.bind_ortvalue_input(NUMBERS_INPUT, OrtValue.ortvalue_from_numpy(self._row))  # not a copy
        self._found = list(outputs.values())
        for name, memory in outputs.items():
            self._binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(memory))

    @classmethod
    def of(cls, session: Any, names: Sequence[str]) -> BoundRow | None:
        """Return one for the first outputs of a session, by their names.

        None where it takes more than numbers, or gives for a row of zeros another size than it declares: such a size
        may be another one for the next row.
        """
        taken = session.get_inputs()
        if [entry.name for entry in taken] != [NUMBERS_INPUT] or not isinstance(width := taken[0].shape[-1], int):
            return None
        try:
            found = session.run(names, {NUMBERS_INPUT: np.zeros((1, width), dtype=np.float32)})
        except Exception:  # onnxruntime has no common base of its errors
            return None
        for entry, its in zip(session.get_outputs(), found, strict=False):
            if entry.type not in _WRITABLE or not entry.shape or its.shape != (1, *entry.shape[1:]):
                return None
        return cls(session, width, {name: np.zeros_like(its) for name, its in zip(names, found, strict=True)})

    def run(self, numbers: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
        """Return the outputs for one row, shape (1, features); copies, since the next row is written over them."""
        np.copyto(self._row, numbers)
        self._run(self._binding)
        return [found.copy() for found in self._found]


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
        row, probes = LinearRow(linear), _probes(linear)
        told = session.run(None, {NUMBERS_INPUT: probes})
        rounding = _rounding(linear, probes)
        agree = (_agrees(row(probes[[place]]), told, place, rounding[place]) for place in range(_PROBES))
        return row if all(agree) else None
    except (msgspec.MsgspecError, ValueError, ArithmeticError, LookupError, TypeError):
        return None


def _probes(linear: Linear) -> npt.NDArray[np.float32]:
    """Return rows by which a wrong number shows, shape (probes, features).

    Chances do not show it but near even odds, and a value does not where it is small beside the intercept. So each
    feature moves the log-odds, from even ones, by as much as any other, all together by some 2; or the value by as many
    intercepts, from one.
    """
    offsets, coefficients = np.array(linear.offsets), np.array(linear.coefficients)
    sizes = np.abs(coefficients)
    largest = sizes.max()
    sizes[sizes <= _LEAST * largest] = largest or 1.0
    steps = 1 / (sizes * math.sqrt(len(sizes)))
    # No two alike; numpy's generators would be loaded for this alone, 3 MiB of them.
    spread = 3 * np.sin(np.arange(_PROBES * len(sizes)) ** 2).reshape(_PROBES, -1)
    spread[0] = 0.0
    if linear.classes:
        start = offsets - linear.intercept * coefficients / (coefficients.dot(coefficients) or 1.0)
    else:
        start = offsets
        steps = np.maximum(steps * max(1.0, abs(linear.intercept)), np.abs(np.spacing(offsets.astype(np.float32))))
    with np.errstate(over="raise"):
        rows: npt.NDArray[np.float32] = (start + spread * steps).astype(np.float32)
    return rows


def _rounding(linear: Linear, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return how far a sum in 32 bits, in whatever order, may be from the exact one; shape (rows,)."""
    size: npt.NDArray[np.float64]
    size = np.abs(rows - np.array(linear.offsets)).dot(np.abs(linear.coefficients)) + abs(linear.intercept)
    return (len(linear.offsets) + 3) * float(np.finfo(np.float32).eps) / 2 * size


def _agrees(one: Predicted, told: Sequence[Any], place: int, rounding: float) -> bool:
    if one.probabilities is None:
        value, expected = float(one.labels[0]), float(np.ravel(told[0])[place])
        return abs(value - expected) <= TWIN_TOLERANCE * abs(expected) + rounding
    chances = np.asarray(told[1])[place]
    close = TWIN_TOLERANCE + min(rounding, _MOST_ROUNDING) / 4  # a chance moves by a fourth of the log-odds at most
    is_label = one.labels[0] == np.ravel(told[0])[place] or abs(chances[0] - chances[1]) <= 2 * close  # either is
    return bool(is_label and np.allclose(one.probabilities[0], chances, rtol=0, atol=close))
