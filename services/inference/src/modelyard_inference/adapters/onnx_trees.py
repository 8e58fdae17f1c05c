"""Finds the trees of an ONNX twin: the one ensemble of its graph, and the part of the graph that leads to it.

Forests, extra trees and gradient boosting become such a graph: columns are made of the features, one node has all
trees, and what follows says the answer. Whoever uses the trees compares them with what the twin itself answers, so that
nothing of what follows has to be understood here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from modelyard_bundle.runtimes.base import ONNX_FILE
from modelyard_common.errors import Invalid
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import Signature

from modelyard_inference.domain.tree_shapley import TreeModel, Trees

__all__ = ["trees_of"]

_log = get_logger(__name__)
_KINDS = {"TreeEnsembleClassifier": "class", "TreeEnsembleRegressor": "target"}
"""Operators of the domain ``ai.onnx.ml``, and what the attributes of their leaves begin with."""
_LINKS = (b"NONE", b"LOGISTIC", b"")
_LABELS = ("classlabels_int64s", "classlabels_strings")
_MISSING = "nodes_missing_value_tracks_true"
_FLOAT = 1
"""ONNX's number of the type of 32 bits."""
_MOST_BYTES = 8 * 1024**2
"""Of a file: while it is parsed, which takes some ten milliseconds then, predictions wait."""
_MOST_CONDITIONS = 1_000_000
"""Of all leaves together, 14 bytes each."""
_DEEPEST = 500
"""Nodes of a path; one that goes in a circle has no end."""


def trees_of(folder: Path, signature: Signature) -> TreeModel | None:
    """Return the trees of a bundle's twin; None where it has none, or larger ones or others than are taken here.

    Raises:
        OSError: the file cannot be read.
    """
    # Loaded where somebody asks for an explanation.
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from modelyard_bundle.runtimes.onnx import OnnxPart  # noqa: PLC0415

    from modelyard_inference.adapters.onnx_graph_pb2 import Model  # noqa: PLC0415

    try:
        if (folder / ONNX_FILE).stat().st_size > _MOST_BYTES:
            return None
        model = Model.FromString((folder / ONNX_FILE).read_bytes())
        nodes = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
        if len(nodes) != 1 or nodes[0].op_type not in _KINDS or nodes[0].domain != "ai.onnx.ml":
            return None
        trees = _trees(_KINDS[nodes[0].op_type], {one.name: one for one in nodes[0].attribute})
        if trees is None:
            return None
        return TreeModel(trees, OnnxPart(_up_to(model, nodes[0].input[0]), signature).values)
    except (DecodeError, Invalid, ValueError, KeyError, IndexError, OverflowError, TypeError) as exc:
        _log.warning("trees.not_read", kind=type(exc).__name__)
        return None


def _up_to(model: Any, tensor: str) -> bytes:
    """Return the graph that has only what leads to a tensor, which is its output."""
    graph, wanted = model.graph, {tensor}
    for place in reversed(range(len(graph.node))):  # in an order in which each comes behind what it needs
        if wanted.isdisjoint(graph.node[place].output):
            del graph.node[place]
        else:
            wanted.update(graph.node[place].input)
    for place in reversed(range(len(graph.input))):
        if graph.input[place].name not in wanted:
            del graph.input[place]
    if not graph.node:  # it is an input; a graph without a node is none
        graph.node.add(input=[tensor], output=[f"{tensor}_seen"], op_type="Identity")
        tensor = f"{tensor}_seen"
    del graph.output[:]
    graph.output.add(name=tensor).type.tensor_type.elem_type = _FLOAT
    content: bytes = model.SerializeToString()
    return content


def _trees(leaf: str, told: Mapping[str, Any]) -> Trees | None:
    """Return the trees that the attributes of a node tell; None where they are not of the usual kind."""
    if set(told["nodes_modes"].strings) - {b"BRANCH_LEQ", b"LEAF"} or _text(told, "post_transform") not in _LINKS:
        return None
    if _text(told, "aggregate_function") not in (b"", b"SUM"):
        return None
    is_leaf = np.array([mode == b"LEAF" for mode in told["nodes_modes"].strings])
    ends, branches = np.flatnonzero(is_leaf), np.flatnonzero(~is_leaf)
    tree_ids = _ints(told, "nodes_treeids")
    node = _Numbered(tree_ids, _ints(told, "nodes_nodeids"))
    parent = np.full(len(is_leaf), -1, np.int64)
    is_true = np.zeros(len(is_leaf), bool)
    for name, true in (("nodes_truenodeids", True), ("nodes_falsenodeids", False)):
        children = node.places(tree_ids[branches], _ints(told, name)[branches])
        parent[children] = branches
        is_true[children] = true
    thresholds = np.array(told["nodes_values"].floats, np.float32)
    columns = _ints(told, "nodes_featureids").astype(np.int32)
    missing = _ints(told, _MISSING).astype(bool) if _MISSING in told else np.zeros(len(is_leaf), bool)
    paths = _paths(ends, parent)
    if paths is None:
        return None
    of_leaf, asked, reached = paths
    values, base = _values(leaf, told, node, len(is_leaf))
    leaves = np.unique(of_leaf)
    alone = np.setdiff1d(ends, leaves)  # a tree that asks nothing says the same to everybody
    branch = is_true[reached]
    return Trees(
        starts=np.searchsorted(of_leaf, leaves).astype(np.int64),
        columns=columns[asked],
        thresholds=thresholds[asked],
        wants_most=branch,
        takes_missing=missing[asked] == branch,
        values=values[leaves],
        base=base + values[alone].sum(axis=0),
        count=len(np.unique(tree_ids)),
    )


def _paths(
    leaves: npt.NDArray[np.int64], parent: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return each condition on the way to each leaf, in the order of the leaves: the leaf, the node that asks, and the
    one that follows; None for too many of them."""
    found: list[tuple[npt.NDArray[np.int64], ...]] = []
    of_leaf, here, count = leaves, leaves, 0
    for _ in range(_DEEPEST):
        above = parent[here]
        goes_on = above >= 0
        of_leaf, here, above = of_leaf[goes_on], here[goes_on], above[goes_on]
        count += len(here)
        if count > _MOST_CONDITIONS:
            return None
        if not len(here):
            break
        found.append((of_leaf, above, here))
        here = above
    else:
        return None
    if not found:
        return None
    all_of = tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(all_of[0], kind="stable")
    return all_of[0][order], all_of[1][order], all_of[2][order]


def _values(
    leaf: str, told: Mapping[str, Any], node: _Numbered, nodes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what each node adds to each output, and what is added to all."""
    outputs = _ints(told, f"{leaf}_ids")
    weights = np.array(told[f"{leaf}_weights"].floats, np.float64)
    classes = max((len(told[name].ints or told[name].strings) for name in told if name in _LABELS), default=0)
    base = np.array(told["base_values"].floats if "base_values" in told else [], np.float64)
    places = node.places(_ints(told, f"{leaf}_treeids"), _ints(told, f"{leaf}_nodeids"))
    values = np.zeros((nodes, max(classes, int(outputs.max(initial=0)) + 1)))
    if classes == 2 and len(np.unique(outputs)) == 1:
        # Of two classes one is told: the second, and the first is what is left.
        np.add.at(values[:, 1], places, weights)
        values[:, 0] = -values[:, 1]
        second = float(base.sum())
        first = -second if _text(told, "post_transform") == b"LOGISTIC" else 1.0 - second
        return values, np.array([first, second])
    np.add.at(values, (places, outputs), weights)
    return values, np.resize(base, values.shape[1]) if len(base) else np.zeros(values.shape[1])


class _Numbered:
    """Nodes by the number of their tree and their own."""

    def __init__(self, trees: npt.NDArray[np.int64], nodes: npt.NDArray[np.int64]) -> None:
        self._width = int(nodes.max(initial=0)) + 1
        keys = trees * self._width + nodes
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def places(self, trees: npt.NDArray[np.int64], nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where they lie. Raise ValueError for one that there is not."""
        keys = trees * self._width + nodes
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if (self._keys[found] != keys).any():
            raise ValueError("a node that there is not")
        places: npt.NDArray[np.int64] = self._order[found]
        return places


def _ints(told: Mapping[str, Any], name: str) -> npt.NDArray[np.int64]:
    return np.array(told[name].ints, np.int64)


def _text(told: Mapping[str, Any], name: str) -> bytes:
    return bytes(told[name].s) if name in told else b""
