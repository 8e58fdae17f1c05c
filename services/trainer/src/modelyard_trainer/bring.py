"""Bringing a model that was fitted elsewhere: ``python -m modelyard_trainer.bring PATH --model M --data SAMPLE …``.

What a run does after fitting is done with a model from a file: it is packed, scored on the sample beside the champion,
tracked and offered to the registry. The answer on standard output is one JSON document: the version with exit code 0,
else a problem document. Refuses whatever holds code, pickles and types that are not on our list, unless ``--pyfunc``
says that the model is trusted.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from modelyard_bundle.packaging import Packed, environment, pack, pack_foreign
from modelyard_bundle.runtimes.base import Predicted, Runtime, positive_scores
from modelyard_bundle.runtimes.sklearn import answer, load_estimator
from modelyard_client import RegistryClient
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Invalid, ModelyardError, Unavailable
from modelyard_common.problems import problem_from
from modelyard_contracts.bundle_v1 import Lineage, Signature
from modelyard_contracts.managed_model_v1alpha1 import ManagedModelSpec
from modelyard_contracts.registry_v1 import RegisterVersionRequest, VersionView
from modelyard_stats.baseline import build_baseline
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from modelyard_trainer.errors import RunFailed
from modelyard_trainer.foreign import feature_names, open_model, packed_pyfunc, read_remote, remote_runtime
from modelyard_trainer.rows import Rows
from modelyard_trainer.steps.evaluate import LabelsOf, evaluate, importances, labels_of, load_contenders, slices
from modelyard_trainer.steps.infer import infer_signature
from modelyard_trainer.steps.split import Division
from modelyard_trainer.steps.validate import history_rows
from modelyard_trainer.tracker import ARTIFACT_PATH, MlflowTracker, skops_file

__all__ = ["bring", "main"]

_EXTERNAL = "external"
_PATIENCE_S = 20.0
"""Somebody waits at a terminal: MLflow may be starting, and is not waited for longer."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """The rows that show what a model does, and what it answers to them."""

    kind: str
    signature: Signature
    rows: Rows
    answers: Predicted
    labels: LabelsOf


def bring(
    path: Path,
    *,
    model: str,
    data: Path,
    registry: RegistryClient,
    tracker: MlflowTracker,
    pyfunc: bool = False,
    server_token_file: Path | None = None,
) -> VersionView:
    """Make a version of a model; return it as the registry sees it.

    Args:
        path: a skops file; an MLflow model folder with pyfunc; a ``.json`` file that names a server.
        server_token_file: with the bearer token that this server wants.

    Raises:
        Invalid: the file holds no model that can be stored safely, or the sample does not fit it; says what to mend.
        NotFound: the registry has no such model.
        Unavailable: the registry or MLflow is away.
    """
    view = registry.model(model)
    spec = ManagedModelSpec.model_validate(view.spec)
    with tempfile.TemporaryDirectory(prefix="modelyard-bring-") as folder:
        work_dir = Path(folder)
        if path.suffix == ".json":
            sample, packed = _from_server(spec, model, path, data, work_dir / "bundle", server_token_file)
        elif pyfunc:
            sample, packed = _from_pyfunc(spec, model, path, data, work_dir / "bundle")
        else:
            sample, packed = _from_skops(spec, model, path, data, work_dir / "bundle")
        evaluation = evaluate(
            _EXTERNAL,
            Division(sample.rows, sample.rows, "test"),
            signature=sample.signature,
            candidate=sample.answers,
            digest=str(packed.digest),
            data_until=None,
            contenders=load_contenders(registry, view, sample.rows, work_dir=work_dir),
        )
        metrics = {name: value.value for name, value in evaluation.scores[0].metrics.items()}
        try:
            tracked = tracker.track(packed.folder, packed.manifest, metrics)
        except RunFailed as exc:
            raise Unavailable(exc.message) from exc
    request = RegisterVersionRequest(
        digest=str(packed.digest),
        mlflow_run_id=tracked,
        artifact_path=ARTIFACT_PATH,
        run=_EXTERNAL,
        evaluation=evaluation,
    )
    return registry.register(model, request)


def _from_skops(spec: ManagedModelSpec, model: str, file: Path, data: Path, folder: Path) -> tuple[_Sample, Packed]:
    estimator = load_estimator(file)
    sample = _sample(spec, estimator, data)
    return sample, pack(folder, estimator=estimator, **_described(model, sample))


def _from_pyfunc(spec: ManagedModelSpec, model: str, source: Path, data: Path, folder: Path) -> tuple[_Sample, Packed]:
    opened = open_model(source)
    signature, rows = _rows(spec, data, feature_names(opened))
    runtime = packed_pyfunc(source, folder, opened, signature, rows.columns)
    sample = _asked(runtime, "pyfunc", signature, rows)
    return sample, pack_foreign(folder, runtime=runtime, **_described(model, sample))


def _from_server(
    spec: ManagedModelSpec, model: str, file: Path, data: Path, folder: Path, token_file: Path | None
) -> tuple[_Sample, Packed]:
    server = read_remote(file)
    signature, rows = _rows(spec, data, None)
    runtime = remote_runtime(server, signature, token_file)
    try:
        sample = _asked(runtime, "remote", signature, rows)
        return sample, pack_foreign(folder, runtime=runtime, remote=server, **_described(model, sample))
    finally:
        runtime.client.close()


def _asked(runtime: Runtime, kind: str, signature: Signature, rows: Rows) -> _Sample:
    try:
        answers = runtime.predict(rows.columns)
    except ModelyardError:
        raise
    except Exception as exc:  # whatever the model or its server does
        raise Invalid(f"the model does not answer the sample ({type(exc).__name__}: {exc})") from exc
    return _Sample(kind, signature, rows, answers, lambda columns: runtime.predict(columns).labels)


def _rows(spec: ManagedModelSpec, data: Path, names: Sequence[str] | None) -> tuple[Signature, Rows]:
    """Return what a model of this sample takes, and the sample."""
    frame = _read(data)
    if names is not None:
        frame = _features_first(spec, frame, names)
    try:
        signature = infer_signature(spec, frame)
        return signature, history_rows(spec, signature, frame)
    except RunFailed as exc:
        raise Invalid(f"{data.name}: {exc.message}") from exc


def _sample(spec: ManagedModelSpec, estimator: Any, data: Path) -> _Sample:
    _check_task(spec, estimator)
    names = getattr(estimator, "feature_names_in_", None)
    signature, rows = _rows(spec, data, None if names is None else [str(name) for name in names])
    if spec.task == "classification":
        signature = _with_classes(spec, signature, estimator, rows)
    width = int(getattr(estimator, "n_features_in_", len(signature.features)))
    if width != len(signature.features):
        found = ", ".join(column.name for column in signature.features)
        raise Invalid(f"the model takes {width} features, and {data.name} has {len(signature.features)}: {found}")
    try:
        answers = answer(estimator, signature, rows.columns)
    except (ValueError, TypeError, KeyError) as exc:
        raise Invalid(f"the model refuses the rows of {data.name}: {str(exc).splitlines()[0][:300]}") from exc
    return _Sample(type(estimator).__name__, signature, rows, answers, labels_of(estimator, signature))


def _check_task(spec: ManagedModelSpec, estimator: Any) -> None:
    needed = {"classification": "predict_proba", "regression": "predict", "anomaly": "score_samples"}[spec.task]
    kind = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as exc:
        raise Invalid(f"{kind} was not fitted, or is no scikit-learn estimator") from exc
    if not hasattr(estimator, needed):
        raise Invalid(f"spec.task is {spec.task}, which takes a model with {needed}; {kind} has none")
    if spec.task == "regression" and hasattr(estimator, "classes_"):
        raise Invalid(f"spec.task is regression, and {kind} tells classes apart")


def _read(data: Path) -> pd.DataFrame:
    readers: dict[str, Any] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    reader = readers.get(data.suffix.lower())
    if reader is None:
        raise Invalid(f"{data.name} is neither .parquet nor .csv")
    try:
        frame: pd.DataFrame = reader(data)
    except (ValueError, OSError) as exc:
        raise Invalid(f"{data.name} cannot be read: {str(exc).splitlines()[0][:200]}") from exc
    return frame


def _features_first(spec: ManagedModelSpec, frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the columns that the model was fitted on, in its order, and those with another role."""
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise Invalid(f"the sample has no column {absent[0]!r}, which the model takes; it takes {', '.join(names)}")
    others = (spec.data.target, spec.data.timestamp, *spec.data.keys)
    return frame[[*names, *(name for name in others if name in frame.columns and name not in names)]]


def _with_classes(spec: ManagedModelSpec, signature: Signature, estimator: Any, rows: Rows) -> Signature:
    classes = tuple(estimator.classes_.tolist())
    if strange := sorted({value for value in rows.truth.tolist() if value not in classes}, key=str):
        raise Invalid(
            f"spec.data.target: the sample has the class {strange[0]!r}, and the model knows "
            f"{', '.join(repr(known) for known in classes)}"
        )
    positive = spec.data.positive_class
    if positive is None and len(classes) == 2:
        positive = classes[1]
    return signature.model_copy(update={"classes": classes, "positive_class": positive})


def _described(model: str, sample: _Sample) -> dict[str, Any]:
    """Return what a bundle says of itself; its baseline is the sample, and nobody knows what the model learned from."""
    metrics = slices(sample.signature, sample.rows, sample.answers)
    watched = positive_scores(sample.signature, sample.answers)
    baseline = build_baseline(
        sample.rows.columns,
        importances=importances(sample.signature, sample.labels, sample.rows, seed=0),
        predictions=sample.answers.labels if watched is None else watched,
        metrics=metrics[0].metrics,
    )
    lineage = Lineage(
        run=_EXTERNAL,
        dataset=sample.rows.digest,
        estimator=sample.kind,
        code=f"modelyard-trainer {version('modelyard-trainer')}",
        environment=environment(),
    )
    return {
        "model": model,
        "signature": sample.signature,
        "sample": sample.rows.columns,
        "lineage": lineage,
        "baseline_json": baseline.to_json(),
        "metrics": metrics,
        "created": SystemClock().now(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="modelyard_trainer.bring", description="Bring a model fitted elsewhere.")
    parser.add_argument("path", type=Path, help="a .skops file, an MLflow model folder, or server.json")
    parser.add_argument("--pyfunc", action="store_true", help="the folder holds any flavour; its code runs here")
    parser.add_argument("--model", required=True, help="whose version it becomes")
    parser.add_argument("--data", type=Path, required=True, help="sample rows with the target, Parquet or CSV")
    parser.add_argument("--registry-url", required=True)
    parser.add_argument("--mlflow-url", required=True)
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--server-token-file", type=Path, help="the bearer token that the server.json's server wants")
    return parser.parse_args()


def main() -> None:
    """Do what the arguments say, and write the answer to standard output."""
    given = _arguments()
    registry = RegistryClient(given.registry_url, token_file=given.token_file, timeout_s=30.0)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # MLflow tells its links there
            # Before the tracker, whose thread must not import MLflow at the same time.
            foreign = given.pyfunc or given.path.suffix == ".json"
            path = given.path if foreign else skops_file(given.path)
            tracker = MlflowTracker(
                given.mlflow_url, run=_EXTERNAL, token_file=given.token_file, patience_s=_PATIENCE_S
            )
            brought = bring(
                path,
                model=given.model,
                data=given.data,
                registry=registry,
                tracker=tracker,
                pyfunc=given.pyfunc,
                server_token_file=given.server_token_file,
            )
    except ModelyardError as exc:
        sys.stdout.write(problem_from(exc).model_dump_json())
        sys.exit(1)
    sys.stdout.write(brought.model_dump_json())


if __name__ == "__main__":
    main()
