"""Apply a manifest: keep the policy, raise the generation when it changed, and follow what it pins."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.specs import spec_digest, training_digest

from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.ports import Reader
from modelyard_registry.usecases.records import Model, Version

__all__ = ["apply_model", "delete_model", "model_under", "moves_routing", "pinned_version"]


def apply_model(act: Act, manifest: ManagedModel) -> Model:
    """Return the model under the manifest's policy. Applying the same policy again changes nothing."""
    name = manifest.metadata.name
    before = act.store.lock_model(name)
    model = model_under(manifest, before, act.now)
    if model == before:
        return model
    act.store.save_model(model)
    act.record(
        "model.applied",
        name,
        model.spec_digest,
        generation=model.generation,
        training_digest=model.training_digest,
        revived=before is not None and before.deleted,
    )
    _follow(act, before, model)
    act.touch(name)
    return model


def model_under(manifest: ManagedModel, before: Model | None, now: datetime) -> Model:
    """Return the model as it is once the manifest is applied; the one of before when that changes nothing."""
    spec = manifest.spec
    digest = str(spec_digest(spec))
    if before is not None and not before.deleted and before.spec_digest == digest:
        return before
    return Model(
        name=manifest.metadata.name,
        generation=before.generation + 1 if before else 1,
        spec=spec,
        written=manifest.to_wire()["spec"],
        spec_digest=digest,
        training_digest=str(training_digest(spec)),
        created=before.created if before else now,
        updated=now,
    )


def moves_routing(before: Model | None, model: Model) -> bool:
    """Return whether the policy itself asks for another routing table: payload logging, replay, a model anew."""
    return before is None or before.deleted or _routing_policy(before) != _routing_policy(model)


def pinned_version(reader: Reader, model: Model) -> Version | None:
    """Return the version that the manifest pins, if its rollout is to be started."""
    pinned = model.spec.rollout.version
    if pinned is None:
        return None
    version = reader.version(model.name, pinned)
    running = reader.active_rollout(model.name)
    if version is None or version.state == "champion" or (running and running.candidate == pinned):
        return None
    return version


def _follow(act: Act, before: Model | None, model: Model) -> None:
    """Put into force what the new policy changes about routing: payload logging, replay, a pinned version."""
    if moves_routing(before, model):
        conduct.republish(act, model)
    version = pinned_version(act.store, model)
    if version is not None:
        conduct.start(act, model, version, kind="manual", reason="pinned by the manifest")


def _routing_policy(model: Model) -> tuple[float, tuple[str, ...], int | None, bool]:
    serve = model.spec.serve
    return serve.log_payloads, serve.redact, serve.batch_rows, model.spec.monitor.replay


def delete_model(act: Act, name: str) -> tuple[str, ...]:
    """Delete a model; return the digests whose bytes are to be forgotten (``deletionPolicy: delete``).

    ``retain`` keeps versions, aliases and bundles: applying the manifest again revives the model with its
    champion. ``delete`` gives up the champion and the contenders too. The ledger stays in both cases.
    """
    model = act.store.lock_model(name)
    if model is None or model.deleted:
        act.lock(name)
        return ()
    running = act.store.active_rollout(name)
    if running is not None:
        conduct.stop(act, model, running, "the model was deleted", returns=True)
    forgotten: tuple[str, ...] = ()
    if model.spec.deletion_policy == "delete":
        forgotten = _give_up_versions(act, name)
    gone = replace(model, deleted=True, updated=act.now)
    act.store.save_model(gone)
    act.record("model.deleted", name, name, policy=model.spec.deletion_policy)
    conduct.publish(act, gone)
    act.touch(name)
    return forgotten


def _give_up_versions(act: Act, name: str) -> tuple[str, ...]:
    digests = []
    before: int | None = None
    while page := act.store.versions(name, before=before, limit=100):
        for version in page:
            state = version.state if version.state in ("refused", "aborted") else "aborted"
            act.store.save_version(replace(version, state=state, mlflow_version=None, mirrored_state=""))
            digests.append(version.digest)
        before = page[-1].number
    return tuple(digests)
