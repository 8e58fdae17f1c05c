"""The ONNX twin of an estimator: made once, at training, and used only where it agrees with the estimator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.probe import answers_alone, has_labels_of, has_shape_of
from modelyard_bundle.runtimes.base import NUMBERS_INPUT, ONNX_FILE, TWIN_TOLERANCE, Predicted, scale, text_input
from modelyard_bundle.runtimes.onnx import OnnxRuntime
from modelyard_bundle.runtimes.onnx_rows import LINEAR, Linear
from modelyard_bundle.runtimes.sklearn import tree_nodes
from modelyard_bundle.signature import Columns, numeric_features, text_features

__all__ = ["Parity", "make_twin"]

_SPREAD_TOLERANCE = 1e-3
"""How far a value may be from the estimator's, relative to what the estimator's differ by. 32 bits keep seven digits of
a value: where the first five are always the same, a caller would see steps."""
_LINEAR_OPERATORS = ("LinearClassifier", "LinearRegressor")
_MOST_NODES = 2_000_000
"""A larger forest takes most of a minute to convert, and nears the two gigabytes that an ONNX file may have."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison found."""

    held: bool
    sentence: str


def make_twin(folder: Path, estimator: Any, signature: Signature, columns: Columns, answers: Predicted) -> Parity:
    """Write ``model.onnx`` if the estimator can be converted and answers the same; else leave no file.

    Args:
        columns: rows to compare on.
        answers: the estimator's own.
    """
    if signature.task == "anomaly":
        return Parity(False, "no twin: anomaly detectors are served by scikit-learn")
    if (nodes := tree_nodes(estimator)) > _MOST_NODES:
        return Parity(False, f"no twin: its trees have {nodes} nodes, more than the {_MOST_NODES} that are converted")
    try:
        (folder / ONNX_FILE).write_bytes(_convert(estimator, signature))
        runtime = OnnxRuntime(folder, signature)
        together = runtime.predict(columns)
        parity = _compare(signature, answers, together)
        if parity.held:
            alone = _compare(signature, answers, answers_alone(runtime, signature, columns, together))
            if not alone.held:
                parity = Parity(False, f"rows by themselves: {alone.sentence}")
    except Exception as exc:  # converters raise whatever they like; without a twin the estimator serves
        (folder / ONNX_FILE).unlink(missing_ok=True)
        return Parity(False, f"no twin: the conversion failed ({type(exc).__name__})")
    if not parity.held:
        (folder / ONNX_FILE).unlink()
    return parity


def _convert(estimator: Any, signature: Signature) -> bytes:
    from skl2onnx import convert_sklearn  # noqa: PLC0415  # heavy, and only where models are made
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    inputs: list[tuple[str, Any]] = []
    if numbers := numeric_features(signature):
        inputs.append((NUMBERS_INPUT, FloatTensorType([None, len(numbers)])))
    inputs += [(text_input(place), StringTensorType([None, 1])) for place, _ in enumerate(text_features(signature))]
    # As a subtraction and a division: ONNX Runtime's own operator for both goes value by value.
    options: dict[Any, Any] = {StandardScaler: {"div": "div"}}
    if signature.task == "classification":
        options[id(estimator)] = {"zipmap": False}
    converted = convert_sklearn(estimator, initial_types=inputs, options=options)
    _fold_divisions(converted.graph)
    if (linear := _linear(converted.graph)) is not None:
        converted.metadata_props.add(key=LINEAR, value=msgspec.json.encode(linear).decode())
    content: bytes = converted.SerializeToString()
    return content


def _fold_divisions(graph: Any) -> None:
    """Divide the coefficients of a linear model instead of all of its inputs, where a constant divides them.

    What is subtracted before stays as it is: in 32 bits it is the difference that is exact, not the products.
    """
    from onnx import numpy_helper  # noqa: PLC0415

    constants = {constant.name: constant for constant in graph.initializer}
    for place in reversed(range(len(graph.node))):
        division = graph.node[place]
        takers = [node for node in graph.node if division.output[0] in node.input]
        if division.op_type != "Div" or division.input[1] not in constants or len(takers) != 1:
            continue
        (linear,) = takers
        if linear.op_type not in _LINEAR_OPERATORS or division.output[0] in {output.name for output in graph.output}:
            continue
        divisor = numpy_helper.to_array(constants[division.input[1]]).astype(np.float64).ravel()
        (coefficients,) = (one for one in linear.attribute if one.name == "coefficients")
        folded = np.array(coefficients.floats).reshape(-1, len(divisor)) / divisor
        coefficients.floats[:] = folded.ravel().tolist()
        linear.input[0] = division.input[0]
        del graph.node[place]
    used = {name for node in graph.node for name in node.input}
    for name in constants.keys() - used:
        graph.initializer.remove(constants[name])


def _linear(graph: Any) -> Linear | None:
    """Return the linear model that a graph is, of one target or of two classes that are integers; None for any other.

    Such a graph has one node, or one before it that subtracts a constant from all features.
    """
    from onnx import helper, numpy_helper  # noqa: PLC0415

    *before, model = graph.node
    if [node.op_type for node in before] not in ([], ["Sub"]) or model.op_type not in _LINEAR_OPERATORS:
        return None
    told = {one.name: helper.get_attribute_value(one) for one in model.attribute}
    coefficients, intercepts = np.array(told["coefficients"]), np.array(told.get("intercepts", [0.0]))
    offsets = np.zeros(graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    taken = model.input[0]
    if before:
        constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
        taken, subtracted = before[0].input
        offsets = offsets + constants[subtracted].astype(np.float64).ravel()
    classes: list[int] = list(told.get("classlabels_ints", []))
    if model.op_type == "LinearClassifier":
        coefficients = coefficients.reshape(len(intercepts), -1)
        is_symmetric = len(intercepts) == 2 and np.allclose(coefficients[0], -coefficients[1])
        if told.get("post_transform") != b"LOGISTIC" or len(classes) != 2 or not is_symmetric:
            return None
        coefficients, intercepts = coefficients[1], intercepts[1:]
    if taken != NUMBERS_INPUT or len(intercepts) != 1 or coefficients.shape != offsets.shape:
        return None
    return Linear(offsets.tolist(), coefficients.tolist(), float(intercepts[0]), classes)


def _compare(signature: Signature, answers: Predicted, twin: Predicted) -> Parity:
    if not has_shape_of(answers, twin):
        return Parity(False, "no twin: its answers have another shape than the estimator's")
    rows = len(answers.labels)
    if signature.task == "regression":
        a, b = answers.labels.astype(float), twin.labels.astype(float)
        off, usual = np.abs(a - b), scale(a)
        relative = float(np.max(off / np.maximum(np.abs(a), usual)))
        apart = float(np.max(off / np.maximum(np.abs(a - np.median(a)), usual)))
        return Parity(
            relative <= TWIN_TOLERANCE and apart <= _SPREAD_TOLERANCE,
            f"largest difference {relative:.1e} of a value, {apart:.1e} of what values differ by, in {rows} rows",
        )
    flips = int((~has_labels_of(answers, twin)).sum())
    assert answers.probabilities is not None and twin.probabilities is not None  # noqa: S101
    worst = float(np.max(np.abs(answers.probabilities - twin.probabilities)))
    return Parity(
        flips == 0 and worst <= TWIN_TOLERANCE, f"{flips} labels differ, largest difference {worst:.1e} in {rows} rows"
    )
