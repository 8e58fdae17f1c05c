"""From the values of a request to the columns of one version: checked against its signature, by name.

The usual request (every feature there, numbers as numbers) is checked as a whole; anything else goes the slow way
of ``modelyard_bundle.signature``, which names each wrong field. Both give the same columns.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from modelyard_bundle.signature import LARGEST, Table, columns_from_values, numeric_features, text_features
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature
from modelyard_contracts.problem import FieldError

from modelyard_inference.domain.requests import Rows, plain

__all__ = ["Binder", "Bound", "Misfit"]

Values = Mapping[str, Sequence[Any]]
"""Feature to the values as they were sent, one a row."""

_NUMBERS = frozenset({float, int})
_TEXTS = frozenset({str})
_MANY = 128
"""From here on numpy checks numbers quicker than Python does."""


class Misfit(Invalid):
    """The rows do not fit the signature."""


class Bound(msgspec.Struct, frozen=True):
    """Rows that one version takes.

    Attributes:
        sent: the values as they were sent, by name; None where they are the request's matrix.
        numbers: float32, shape (rows, numeric features).
        texts: of each category, shape (rows,).
    """

    binder: Binder
    rows: Rows
    sent: Values | None
    numbers: npt.NDArray[np.float32]
    texts: tuple[npt.NDArray[Any], ...]

    @property
    def columns(self) -> Table:
        """What a runtime takes."""
        return self.binder.table(self.numbers, self.texts)

    def part(self, start: int, end: int) -> Bound:
        """Return what a runtime takes of some of the rows; it is not for the log."""
        if end - start == len(self.numbers):
            return self
        return Bound(
            self.binder, self.rows, self.sent, self.numbers[start:end], tuple(t[start:end] for t in self.texts)
        )


class Binder:
    """Checks requests against one signature.

    Args:
        signature: of the version that will answer.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._names = tuple(column.name for column in signature.features)
        self._numeric = tuple(numeric_features(signature))
        self._places = {name: place for place, name in enumerate(self._numeric)}
        self._texts = tuple(text_features(signature))
        self._only_numbers = all(column.type in ("number", "integer") for column in signature.features)
        self._only_plain = all(column.type != "boolean" for column in signature.features)
        self._types = {column.name: column.type for column in signature.features}
        self._whole = [place for name, place in self._places.items() if self._types[name] == "integer"]

    def bind(self, rows: Rows) -> Bound:
        """Return the rows as this version takes them.

        Raises:
            Misfit: unknown or missing features, wrong types, numbers too large; names each, never a value.
        """
        try:
            bound = self._bound(rows)
            if self._whole:
                self._refuse_fractions(bound.numbers)
        except Invalid as exc:
            raise Misfit(exc.message, errors=exc.errors) from exc
        return bound

    def _bound(self, rows: Rows) -> Bound:
        matrix = rows.matrix
        if matrix is not None and not rows.named and self._only_numbers and matrix.width == len(self._numeric):
            numbers = _numbers_of(matrix.values, known=True)
            if numbers is not None:
                return Bound(self, rows, None, numbers.reshape(rows.count, -1), ())
        values = self._values(rows)
        quick = self._quick(values, rows.count) if len(values) == len(self._names) else None
        if quick is not None:
            return Bound(self, rows, values, *quick)
        self._refuse_huge(values)
        columns = columns_from_values(self._signature, values)
        numbers = _side_by_side([columns[name] for name in self._numeric], rows.count)
        return Bound(self, rows, values, numbers, tuple(columns[name] for name in self._texts))

    def table(self, numbers: npt.NDArray[np.float32], texts: Sequence[npt.NDArray[Any]]) -> Table:
        """Return what a runtime takes."""
        return Table(self._places, numbers, dict(zip(self._texts, texts, strict=True)) if texts else {})

    def logged(
        self, bound: Bound, *, redact: frozenset[str] = frozenset()
    ) -> tuple[Sequence[str], Sequence[Any] | memoryview]:
        """Return the features that are logged, and their values of each row, end to end, each feature of one type.

        What came as an array of floats is as a block has them: its bytes, so that no value is taken out of it.

        Args:
            redact: features that are left out.
        """
        rows, matrix = bound.rows, bound.rows.matrix
        if bound.sent is None and matrix is not None and not redact:
            values = matrix.values
            if isinstance(values, np.ndarray) and values.dtype.kind == "f":
                kind = "<f8" if values.dtype.itemsize == 8 else "<f4"
                return self._names, values.astype(kind, copy=False).data.cast("B")
            return self._names, plain(values)
        names = tuple(name for name in self._names if name not in redact)
        sent = bound.sent if bound.sent is not None else self._values(rows)
        missing = (None,) * rows.count
        columns = [self._logged(name, sent.get(name, missing)) for name in names]
        if rows.count == 1:
            return names, [column[0] for column in columns]
        return names, [value for row in zip(*columns, strict=True) for value in row]

    def _values(self, rows: Rows) -> Values:
        """Return the values by name: what came by position is named after the signature.

        Raises:
            Invalid: not as many positions as features, or a feature that is given twice.
        """
        if rows.untyped:
            if self._types.keys().isdisjoint(rows.named):  # what is no header is a row, whose values nobody repeats
                raise Invalid.at("body", "the first line must name the features")
            return {name: self._typed(name, column) for name, column in rows.named.items() if name in self._types}
        if rows.matrix is not None:
            names, kind, columns = self._numeric, "numeric features", rows.matrix.columns()
        elif rows.positional:
            names, kind, columns = self._names, "features", rows.positional
        elif rows.extras_ignored and rows.named.keys() != self._types.keys():
            missing = (None,) * rows.count
            return {name: rows.named.get(name, missing) for name in self._names}
        else:
            return self._widened(rows) if rows.narrow and len(self._numeric) == 1 else rows.named
        if len(columns) != len(names):
            raise Invalid.at(rows.source, f"has {len(columns)} columns; this model has {len(names)} {kind}")
        if twice := rows.named.keys() & set(names):
            raise Invalid.at(min(twice), f"is given by name and in {rows.source}")
        return dict(rows.named) | dict(zip(names, columns, strict=True))

    def _widened(self, rows: Rows) -> Values:
        """Return the values by name, a matrix of one column that is no feature as the only numeric one."""
        only, strange = self._numeric[0], [name for name in rows.narrow if name not in self._types]
        if len(strange) != 1 or only in rows.named:
            return rows.named
        return {only if name == strange[0] else name: column for name, column in rows.named.items()}

    def _logged(self, name: str, column: Sequence[Any]) -> Sequence[Any]:
        kind = self._types[name]
        if kind == "category":
            return [value if value is None else str(value) for value in column]
        if kind == "boolean":
            return [value if value is None else bool(value) for value in column]
        return column

    def _typed(self, name: str, column: Sequence[str]) -> Sequence[Any]:
        """Return text as what the signature makes of it; what it cannot be stays text, and is refused as such."""
        kind = self._types[name]
        return [_read(kind, text) for text in column]

    def _quick(self, values: Values, count: int) -> tuple[npt.NDArray[np.float32], tuple[npt.NDArray[Any], ...]] | None:
        """Return numbers and texts when all are there and plain; None leaves it to the slow way."""
        if not self._only_plain:
            return None
        try:
            flat = [number for name in self._numeric for number in values[name]]
            texts = [values[name] for name in self._texts]
        except KeyError:
            return None
        if not all(_TEXTS.issuperset(map(type, column)) for column in texts):
            return None
        numbers = _numbers_of(flat)
        if numbers is None:
            return None
        rows = numbers.reshape(len(self._numeric), -1).T if self._numeric else numbers.reshape(count, 0)
        return np.ascontiguousarray(rows), tuple(_objects(column) for column in texts)

    def _refuse_fractions(self, numbers: npt.NDArray[np.float32]) -> None:
        """Refuse parts of integers, which some runtimes would cut off; 3.0 is one, and what is missing is none."""
        part = numbers[:, self._whole]
        if (part == np.rint(part)).all():
            return
        wrong = np.argwhere((part != np.rint(part)) & ~np.isnan(part))[:20].tolist()
        errors = tuple(
            FieldError(path=f"[{row}].{self._numeric[self._whole[place]]}", message="must be a whole number")
            for row, place in wrong
        )
        if errors:
            raise Invalid(f"{errors[0].path}: {errors[0].message}", errors=errors)

    def _refuse_huge(self, values: Values) -> None:
        """Refuse numbers that models, which compute in 32 bits, would see as infinite."""
        errors = [
            FieldError(path=f"[{row}].{name}", message=f"must lie between -{LARGEST:.4g} and {LARGEST:.4g}")
            for name, column in values.items()
            if self._types.get(name, "category") != "category"
            for row, number in enumerate(column)
            if type(number) in _NUMBERS and not -LARGEST <= number <= LARGEST and number == number  # noqa: PLR0124
        ]
        if errors:
            raise Invalid(f"{errors[0].path}: {errors[0].message}", errors=tuple(errors[:20]))


def _numbers_of(values: Sequence[Any] | npt.NDArray[Any], *, known: bool = False) -> npt.NDArray[np.float32] | None:
    """Return values as numbers of 32 bits when all are finite ones of these; None where something needs a look.

    Args:
        known: they are numbers or None; that was checked.
    """
    if isinstance(values, np.ndarray):
        # In 16 bits the bound itself would be infinite, and what is infinite within it.
        wide: npt.NDArray[Any] = values if values.dtype.itemsize >= 4 else values.astype(np.float32)
    elif len(values) < _MANY:
        if not known and not _NUMBERS.issuperset(map(type, values)):
            return None
        try:
            # The sum is for NaN, which min and max may pass over.
            if values and not (min(values) >= -LARGEST and max(values) <= LARGEST and isfinite(sum(values))):
                return None
        except TypeError:  # None is among them
            return None
        # Packed, since numpy would look at each value twice.
        return np.frombuffer(struct.pack(f"{len(values)}f", *values), np.float32)
    elif not known and not _NUMBERS.issuperset(map(type, values)):
        return None
    else:
        try:
            wide = np.frombuffer(struct.pack(f"{len(values)}d", *values), np.float64)
        except (struct.error, OverflowError):  # None is among them, or an integer past all bounds
            return None
    # Their places are found in a third of the time that a comparison of all takes. A NaN is both, and is no number.
    if not (wide.item(wide.argmin()) >= -LARGEST and wide.item(wide.argmax()) <= LARGEST):
        return None
    return wide.astype(np.float32, copy=False)


def _objects(column: Sequence[Any]) -> npt.NDArray[Any]:
    objects = np.empty(len(column), dtype=object)
    objects[:] = column
    return objects


def _side_by_side(columns: Sequence[npt.NDArray[np.float32]], count: int) -> npt.NDArray[np.float32]:
    return np.stack(columns, axis=1) if columns else np.empty((count, 0), dtype=np.float32)


def _read(kind: str, text: str) -> Any:
    """Return what a value of CSV means; a number is what pandas, by which MLflow's server reads it, takes for one."""
    if text == "":
        return None
    if kind == "category":
        return text
    if kind == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower(), text)
    if "_" in text or not text.isascii():  # float() takes 1_000, and the digits of all scripts
        return text
    try:
        number = float(text)
    except ValueError:
        if text in {"NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None"}:
            return None
        return text
    return None if number != number else number  # noqa: PLR0124  # NaN: how pandas writes what is missing
