"""Register a version: verify every byte of its bundle, give it a number, judge it.

The bytes are read before the transaction begins and no transaction waits for MLflow. Offering the same digest
again changes nothing and answers with the version as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_common.clock import Clock
from modelyard_common.errors import Invalid
from modelyard_common.tracing import span
from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_contracts.problem import FieldError
from modelyard_contracts.registry_v1 import RegisterVersionRequest

from modelyard_registry.usecases.act import Act, find_model
from modelyard_registry.usecases.judge_version import judge_version
from modelyard_registry.usecases.ports import Bundles, Transactions
from modelyard_registry.usecases.records import Model, Version

__all__ = ["RegisterVersion"]


@dataclass(frozen=True, slots=True)
class RegisterVersion:
    """Verify, number and judge a bundle."""

    transactions: Transactions
    bundles: Bundles
    clock: Clock

    def __call__(self, name: str, request: RegisterVersionRequest, *, actor: str) -> tuple[Version, bool]:
        """Return the version, and whether it is new.

        Raises:
            NotFound: there is no such model.
            Invalid: the bundle, or what is said about it, is not in order.
            Unavailable: MLflow cannot be reached.
        """
        with self.transactions.read() as reader:
            model = find_model(reader, name)
            known = reader.version(name, request.digest)
        if known is not None:
            return known, False
        with span("verify bundle", attributes={"modelyard.model": name, "modelyard.version": request.digest}):
            manifest = self.bundles.verify(
                run_id=request.mlflow_run_id, artifact_path=request.artifact_path, digest=request.digest
            )
        _check(model, manifest, request)
        with self.transactions.write() as store:
            return _register(Act(store, actor, self.clock.now()), name, request, manifest)


def _register(act: Act, name: str, request: RegisterVersionRequest, manifest: BundleManifest) -> tuple[Version, bool]:
    model = act.lock(name)
    known = act.store.version(name, request.digest)
    if known is not None:
        return known, False
    _check(model, manifest, request)
    version = Version(
        model=name,
        number=act.store.next_number(name),
        digest=request.digest,
        state="registered",
        run=request.run,
        registered=act.now,
        manifest=manifest,
        mlflow_run_id=request.mlflow_run_id,
        artifact_path=request.artifact_path,
        evaluation=request.evaluation,
    )
    act.store.save_version(version)
    lineage = manifest.lineage
    act.record(
        "version.registered",
        name,
        version.digest,
        number=version.number,
        run=version.run,
        mlflow_run_id=version.mlflow_run_id,
        dataset=lineage.dataset,
        data_until=lineage.data_until.isoformat() if lineage.data_until else None,
        files=len(manifest.files),
    )
    return judge_version(act, model, version), True


def _check(model: Model, manifest: BundleManifest, request: RegisterVersionRequest) -> None:
    """Refuse a bundle that is not about this model's task, or an evaluation that is not about this bundle."""
    found: list[FieldError] = []
    if manifest.model != model.name:
        found.append(FieldError(path="digest", message=f"the bundle was made for model {manifest.model!r}"))
    if manifest.signature.task != model.spec.task:
        message = f"the bundle's task is {manifest.signature.task}, the manifest's is {model.spec.task}"
        found.append(FieldError(path="digest", message=message))
    if manifest.signature.target != model.spec.data.target:
        message = (
            f"the bundle predicts {manifest.signature.target!r}, the manifest's target is {model.spec.data.target!r}"
        )
        found.append(FieldError(path="digest", message=message))
    evaluation = request.evaluation
    if evaluation is not None:
        candidates = [score.digest for score in evaluation.scores if score.role == "candidate"]
        if any(digest != request.digest for digest in candidates):
            found.append(FieldError(path="evaluation.scores", message="the candidate's score is of another digest"))
        if len({score.digest for score in evaluation.scores}) != len(evaluation.scores):
            found.append(FieldError(path="evaluation.scores", message="a version is scored twice"))
    if found:
        raise Invalid("the version cannot be registered", errors=tuple(found))
