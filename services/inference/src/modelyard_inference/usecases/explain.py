"""Explain: what each feature of a row added to its answer, by asking the model about rows in between.

It runs on a thread of its own, at most so many rows and so much asking a request, and asks in pieces, so that a
prediction never waits for more than one of them. What it asks is no prediction: it is logged nowhere and counted apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
from modelyard_bundle.probe import probe_rows
from modelyard_bundle.signature import Columns, columns_from_rows
from modelyard_common.clock import Clock
from modelyard_common.errors import ModelyardError, TooLarge
from modelyard_common.logs import get_logger
from modelyard_contracts.bundle_v1 import BundleManifest, Signature

from modelyard_inference.domain import shapley
from modelyard_inference.domain.ports import Bundles, Lane
from modelyard_inference.domain.requests import Failed, Late, Rows
from modelyard_inference.domain.shapley import Contributions
from modelyard_inference.domain.tree_shapley import TreeModel
from modelyard_inference.usecases.play import (
    COMPARED,
    RESIDUE,
    Asked,
    Ground,
    Mixed,
    Play,
    Target,
    TooSlow,
    VersionTrees,
    matching_trees,
)
from modelyard_inference.usecases.serving import LoadedVersion, ServedModels

__all__ = ["Explain", "ExplainLimits", "ExplainObserver", "Explained", "Explanation", "Method", "Space"]

_log = get_logger(__name__)

Method = Literal["linear", "exact", "trees", "permutation"]
Space = Literal["log-odds", "probability", "value", "score"]

_LINEAR = frozenset({"logisticregression", "linearregression", "ridge", "lasso", "elasticnet"})
"""Estimators that add their features up, in log-odds where they classify. It is measured before it is said."""
_SHARE = 0.8
"""Part of the time that sampling may take; the rest is for the answer."""
_TREES_SHARE = 0.4
"""Part of the time that trees may take; if that was not enough, they are sampled in the rest."""
_MORE = 2.0
"""How much more time there has to be than was not enough before, for them to be tried again."""
_KEPT = 16
_KEPT_TREES = 4


class ExplainObserver(Protocol):
    """Counts explanations."""

    def explained(self, model: str, method: Method, rows: int, evaluations: int, took_s: float) -> None:
        """Count an explanation."""

    def not_explained(self, model: str, reason: str) -> None:
        """Count one that failed; reason: ``late``, ``refused`` or ``failed``."""


@dataclass(frozen=True, slots=True)
class ExplainLimits:
    """What one request may take.

    Attributes:
        rows: rows to explain.
        evaluations: rows that the model is asked for all of them together.
    """

    rows: int
    evaluations: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """One row.

    Attributes:
        label: the class that is explained; None where it is a value or a score.
        contributions: feature to what it adds, in the signature's order.
    """

    prediction: Any
    label: Any
    answer: float
    base: float
    contributions: Mapping[str, float]
    standard_errors: Mapping[str, float] | None
    additivity_error: float


@dataclass(frozen=True, slots=True)
class Explained:
    """All rows of a request: by which version, how, and against what."""

    model: str
    number: int
    digest: str
    method: Method
    space: Space
    background_rows: int
    evaluations: int
    rows: tuple[Explanation, ...]


class TreeReader(Protocol):
    """Finds the trees of a version."""

    def __call__(self, folder: Path, signature: Signature) -> TreeModel | None:
        """Return the trees of the ONNX twin in a bundle; None where there are none that are understood.

        Raises:
            OSError: the file cannot be read.
        """


@dataclass(slots=True)
class Explain:
    """Explains rows of the versions that are loaded here."""

    served: ServedModels
    bundles: Bundles
    lane: Lane
    observer: ExplainObserver
    clock: Clock
    limits: ExplainLimits
    trees: TreeReader
    _grounds: OrderedDict[str, Ground] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    async def __call__(self, model: str, version: str | None, rows: Rows, timeout_s: float) -> Explained:
        """Return what each feature of each row added.

        Args:
            version: a number, digest or alias; the champion when None.

        Raises:
            NotFound: no such model or version here.
            Unavailable: it is not loaded, or its bundle is not here.
            TooLarge: too many rows, or features for what one request may ask.
            Invalid: the rows do not fit the signature.
            Late: there was not time enough. Overloaded: others wait already. Failed: the model raised.
        """
        serving = self.served.find(model)
        loaded = serving.version(version) if version is not None else serving.champion
        self._refuse_too_much(rows.count, len(loaded.signature.features))
        columns = loaded.binder.bind(rows).columns
        started = self.clock.monotonic()
        deadline = started + timeout_s
        try:
            found = await self.lane.run(
                lambda: self._explained(model, loaded, columns, rows.count, deadline), timeout_s
            )
        except Late:
            self.observer.not_explained(model, "late")
            raise
        except ModelyardError:
            self.observer.not_explained(model, "refused")
            raise
        except Exception as exc:
            # Not the exception itself: its message may hold what somebody sent.
            _log.error("explain.failed", model=model, version=loaded.version.number, kind=type(exc).__name__)
            self.observer.not_explained(model, "failed")
            raise Failed from exc
        self.observer.explained(model, found.method, rows.count, found.evaluations, self.clock.monotonic() - started)
        return found

    def _refuse_too_much(self, rows: int, features: int) -> None:
        if rows > self.limits.rows:
            raise TooLarge(f"there are {rows} rows; at most {self.limits.rows} are explained at once")
        least = 2 * shapley.walk_cost(features) * rows
        if least > self.limits.evaluations:
            most = self.limits.evaluations // (2 * shapley.walk_cost(features))
            raise TooLarge(f"{rows} rows of {features} features are too much at once; send at most {most} rows")

    def _explained(self, model: str, loaded: LoadedVersion, columns: Columns, count: int, deadline: float) -> Explained:
        ground = self._ground(model, loaded)
        asked = Asked(self.clock, deadline)
        predicted = loaded.runtime.predict(columns)
        targets = [Target.of(loaded.signature, predicted, row) for row in range(count)]
        plays = [Play(model, loaded, columns, row, ground, targets[row], asked) for row in range(count)]
        method, space, found = self._played(plays, loaded.signature, ground, deadline)
        names = [column.name for column in loaded.signature.features]
        labels = predicted.labels.tolist()
        return Explained(
            model=model,
            number=loaded.version.number,
            digest=loaded.version.digest,
            method=method,
            space=space,
            background_rows=ground.rows,
            evaluations=asked.rows,
            rows=tuple(_explanation(names, labels[row], targets[row].label, one) for row, one in enumerate(found)),
        )

    def _played(
        self, plays: list[Play], signature: Signature, ground: Ground, deadline: float
    ) -> tuple[Method, Space, list[Contributions]]:
        """Return the contributions by the best method that is true of the model and that the limits allow."""
        features, budget = len(signature.features), self.limits.evaluations // len(plays)
        plain: Space = _SPACES[signature.task]
        if ground.estimator in _LINEAR and (features + 1) * ground.rows < budget:
            in_logs = signature.task == "classification"
            linear = [shapley.additive(play.in_log_odds(in_logs), features, ground.rows) for play in plays]
            if all(_adds_up(one) for one in linear):
                return "linear", "log-odds" if in_logs else plain, linear
        if shapley.exact_cost(features, ground.rows) <= budget:
            return "exact", plain, [shapley.exact(play, features, ground.rows) for play in plays]
        in_trees = self._in_trees(plays, budget, deadline)
        if in_trees is not None:
            return "trees", "log-odds" if in_trees[0] else plain, in_trees[1]
        budget = (self.limits.evaluations - plays[0].asked.rows) // len(plays)
        started = self.clock.monotonic()
        each_s = (deadline - started) * _SHARE / len(plays)
        pairs = max(1, (budget - ground.rows - 1) // shapley.walk_cost(features))
        return (
            "permutation",
            plain,
            [
                shapley.sampled(
                    play,
                    features,
                    ground.rows,
                    pairs=pairs,
                    goes_on=lambda until=started + each_s * (place + 1): self.clock.monotonic() < until,  # type: ignore[misc]
                )
                for place, play in enumerate(plays)
            ],
        )

    def _in_trees(self, plays: list[Play], budget: int, deadline: float) -> tuple[bool, list[Contributions]] | None:
        """Return the contributions by the trees of the model, and whether they are in log-odds.

        An answer visits one leaf of each tree, and this all of them; and it makes some rows for each feature.

        Returns:
            None where the model has no trees, or is not their sum, or it would take more than as many answers as the
            budget has, or too much of the time that is left.
        """
        ground, features = plays[0].ground, len(plays[0].loaded.signature.features)
        started = self.clock.monotonic()
        each_s = (deadline - started) * _TREES_SHARE / len(plays)
        if each_s <= ground.slow_s * _MORE:
            return None
        try:
            trees = self._trees_of(plays[0], started + each_s)
            if trees is None or (trees.model.trees.leaves_a_tree + features) * ground.rows + COMPARED > budget:
                return None
            found = [play.in_trees(trees, started + each_s * place) for place, play in enumerate(plays, 1)]
        except TooSlow:
            ground.slow_s = each_s
            return None
        except Mixed:
            ground.trees = None
            return None
        return trees.logs, found

    def _trees_of(self, play: Play, until: float) -> VersionTrees | None:
        """Return the trees of a version, and let those go of versions that nobody has asked about lately."""
        ground, loaded = play.ground, play.loaded
        if ground.looked:
            return ground.trees
        if loaded.runtime.name == "onnx":
            try:
                folder, _ = self.bundles.open(play.model, loaded.version.digest)
                model = self.trees(folder, loaded.signature)
            except (ModelyardError, OSError):  # the next one looks again
                return None
            ground.trees = matching_trees(model, play, until)
        ground.looked, trees = True, ground.trees
        with self._lock:
            with_trees = [other for other in self._grounds.values() if other.trees is not None]
            for other in with_trees[: max(0, len(with_trees) - _KEPT_TREES)]:
                other.trees, other.looked = None, False
        return trees

    def _ground(self, model: str, loaded: LoadedVersion) -> Ground:
        """Return the background of a version: its probe set, which is rows that it was tried on when it was made."""
        digest = loaded.version.digest
        with self._lock:
            if digest in self._grounds:
                self._grounds.move_to_end(digest)
                return self._grounds[digest]
        folder, manifest = self.bundles.open(model, digest)
        rows = probe_rows(folder)
        ground = Ground(columns_from_rows(loaded.signature, rows), len(rows), _estimator(manifest))
        with self._lock:
            self._grounds[digest] = ground
            while len(self._grounds) > _KEPT:
                self._grounds.popitem(last=False)
        return ground


_SPACES: Mapping[str, Space] = {"classification": "probability", "regression": "value", "anomaly": "score"}


def _estimator(manifest: BundleManifest) -> str:
    """Return the kind of estimator, by a recipe's name or a class's."""
    return manifest.lineage.estimator.replace("_", "").lower()


def _adds_up(found: Contributions) -> bool:
    spread = max(abs(found.answer), abs(found.base), float(np.abs(found.values).max(initial=0.0)), 1e-9)
    return bool(np.isfinite(found.residue)) and abs(found.residue) <= RESIDUE * spread


def _explanation(names: list[str], prediction: Any, label: Any, found: Contributions) -> Explanation:
    errors = None if found.errors is None else dict(zip(names, found.errors.tolist(), strict=True))
    return Explanation(
        prediction=prediction,
        label=label,
        answer=found.answer,
        base=found.base,
        contributions=dict(zip(names, found.values.tolist(), strict=True)),
        standard_errors=errors,
        additivity_error=found.residue,
    )
