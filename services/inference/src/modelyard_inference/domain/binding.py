"""From the values of a request to the columns of one version: checked against its signature, by name.

The usual request (every feature there, numbers as numbers) is checked as a whole; anything else goes the slow way
of ``modelyard_bundle.signature``, which names each wrong field. Both give the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from modelyard_bundle.signature import Columns, columns_from_values, numeric_features, text_features
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import Signature
from modelyard_contracts.problem import FieldError

from modelyard_inference.domain.requests import Rows, invalid

__all__ = ["Binder", "Values"]

Values = Mapping[str, Sequence[Any]]
"""Feature to the values as they were sent, one a row."""

_LARGEST = float(np.finfo(np.float32).max)
_NUMBERS = frozenset({float, int})
_TEXTS = frozenset({str})


class Binder:
    """Checks requests against one signature.

    Args:
        signature: of the version that will answer.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._names = tuple(column.name for column in signature.features)
        self._numeric = tuple(numeric_features(signature))
        self._texts = tuple(text_features(signature))
        self._only_plain = all(column.type != "boolean" for column in signature.features)
        self._types = {column.name: column.type for column in signature.features}

    def values(self, rows: Rows) -> Values:
        """Return the values by name: what came by position is named after the signature.

        Raises:
            Invalid: not as many positions as features, or a feature that is given twice.
        """
        if rows.untyped:
            return {name: self._typed(name, column) for name, column in rows.named.items()}
        if not rows.positional:
            return rows.named
        names = self._numeric if rows.scope == "numeric" else self._names
        if len(rows.positional) != len(names):
            kind = "numeric features" if rows.scope == "numeric" else "features"
            raise invalid(rows.source, f"has {len(rows.positional)} columns; this model has {len(names)} {kind}")
        if twice := rows.named.keys() & set(names):
            raise invalid(min(twice), f"is given by name and in {rows.source}")
        return dict(rows.named) | dict(zip(names, rows.positional, strict=True))

    def columns(self, values: Values) -> Columns:
        """Return the columns that a runtime takes.

        Raises:
            Invalid: unknown or missing features, wrong types, numbers too large; names each, never a value.
        """
        quick = self._quick(values) if self._only_plain and len(values) == len(self._names) else None
        if quick is not None:
            return quick
        self._refuse_huge(values)
        return columns_from_values(self._signature, values)

    def features(self, values: Values, count: int, *, redact: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
        """Return the rows as they are logged: by feature, in the signature's order, each feature of one type.

        Args:
            redact: features that are left out.
        """
        names = [name for name in self._names if name not in redact] if redact else self._names
        if not names:
            return [{}] * count
        missing = (None,) * count
        columns = [self._logged(name, values.get(name, missing)) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _logged(self, name: str, column: Sequence[Any]) -> Sequence[Any]:
        kind = self._types[name]
        if kind == "category":
            return [value if value is None else str(value) for value in column]
        if kind == "boolean":
            return [value if value is None else bool(value) for value in column]
        return column

    def _typed(self, name: str, column: Sequence[str]) -> Sequence[Any]:
        """Return text as what the signature makes of it; what it cannot be stays text, and is refused as such."""
        kind = self._types.get(name, "category")
        return [_read(kind, text) for text in column]

    def _quick(self, values: Values) -> Columns | None:
        try:
            flat = [number for name in self._numeric for number in values[name]]
            texts = [values[name] for name in self._texts]
        except KeyError:
            return None
        if not _NUMBERS.issuperset(map(type, flat)):
            return None
        if not all(_TEXTS.issuperset(map(type, column)) for column in texts):
            return None
        # The sum is for NaN, which min and max may pass over. Python's own are quicker than numpy's for a row.
        if flat and not (min(flat) >= -_LARGEST and max(flat) <= _LARGEST and isfinite(sum(flat))):
            return None
        columns: Columns = {}
        if self._numeric:
            matrix = np.array(flat, dtype=np.float32).reshape(len(self._numeric), -1)
            columns = dict(zip(self._numeric, matrix, strict=True))
        for name, column in zip(self._texts, texts, strict=True):
            texts_array = np.empty(len(column), dtype=object)
            texts_array[:] = column
            columns[name] = texts_array
        return columns

    def _refuse_huge(self, values: Values) -> None:
        """Refuse numbers that models, which compute in 32 bits, would see as infinite."""
        errors = [
            FieldError(path=f"[{row}].{name}", message=f"must lie between -{_LARGEST:.4g} and {_LARGEST:.4g}")
            for name, column in values.items()
            if self._types.get(name, "category") != "category"
            for row, number in enumerate(column)
            if type(number) in _NUMBERS and not -_LARGEST <= number <= _LARGEST and number == number  # noqa: PLR0124
        ]
        if errors:
            raise Invalid(f"{errors[0].path}: {errors[0].message}", errors=tuple(errors[:20]))


def _read(kind: str, text: str) -> Any:
    if text == "":
        return None
    if kind == "category":
        return text
    if kind == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower(), text)
    try:
        number = float(text)
    except ValueError:
        return text
    return None if number != number else number  # noqa: PLR0124  # NaN: how pandas writes what is missing
