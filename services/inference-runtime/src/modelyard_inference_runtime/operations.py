"""What a loaded version can be asked for, by name. An operation takes the model, columns and options.

What it returns is written as MessagePack: plain values, arrays and numbers of numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard_bundle.isolated import PREDICT, Ask, columns_of, decoded, encoded, wire_predicted
from modelyard_bundle.runtimes.base import Runtime
from modelyard_bundle.signature import Columns
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import BundleManifest

__all__ = ["OPERATIONS", "Model", "answered"]


@dataclass(frozen=True, slots=True)
class Model:
    """The version of this process, verified and loaded."""

    manifest: BundleManifest
    runtime: Runtime


Operation = Callable[[Model, Columns, Mapping[str, Any]], Any]

OPERATIONS: dict[str, Operation] = {}
"""Beside ``predict``, which answers in a form of its own."""


def answered(model: Model, body: bytes) -> bytes:
    """Return the answer to an ``Ask``.

    Raises:
        Invalid: there is no such operation, or the columns are not those of the signature.
        Exception: whatever the model raises.
    """
    ask = decoded(body, Ask)
    if ask.operation != PREDICT and ask.operation not in OPERATIONS:
        raise Invalid(f"the {model.runtime.name} runtime has no operation {ask.operation[:40]!r}")
    columns = columns_of(model.manifest.signature, ask)
    if ask.operation == PREDICT:
        return wire_predicted(model.runtime.predict(columns))
    return encoded(OPERATIONS[ask.operation](model, columns, ask.options))
