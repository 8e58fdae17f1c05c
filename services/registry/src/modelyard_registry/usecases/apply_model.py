"""Apply a manifest: keep the policy, raise the generation when it changed, and follow what it pins."""

from __future__ import annotations

from dataclasses import replace

from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.specs import spec_digest, training_digest

from modelyard_registry.usecases import conduct
from modelyard_registry.usecases.act import Act
from modelyard_registry.usecases.records import Model

__all__ = ["apply_model"]


def apply_model(act: Act, manifest: ManagedModel) -> Model:
    """Return the model under the manifest's policy. Applying the same policy again changes nothing."""
    name, spec = manifest.metadata.name, manifest.spec
    before = act.store.lock_model(name)
    digest = str(spec_digest(spec))
    if before is not None and not before.deleted and before.spec_digest == digest:
        return before
    model = Model(
        name=name,
        generation=before.generation + 1 if before else 1,
        spec=spec,
        written=manifest.to_wire()["spec"],
        spec_digest=digest,
        training_digest=str(training_digest(spec)),
        created=before.created if before else act.now,
        updated=act.now,
    )
    act.store.save_model(model)
    act.record(
        "model.applied",
        name,
        digest,
        generation=model.generation,
        training_digest=model.training_digest,
        revived=before is not None and before.deleted,
    )
    _follow(act, before, model)
    act.touch(name)
    return model


def _follow(act: Act, before: Model | None, model: Model) -> None:
    """Put into force what the new policy changes about routing: payload logging, replay, a pinned version."""
    if before is None or before.deleted or _routing_policy(before) != _routing_policy(model):
        conduct.republish(act, model)
    pinned = model.spec.rollout.version
    if pinned is None:
        return
    version = act.store.version(model.name, pinned)
    running = act.store.active_rollout(model.name)
    if version is None or version.state == "champion" or (running and running.candidate == pinned):
        return
    conduct.start(act, model, version, kind="manual", reason="pinned by the manifest")


def _routing_policy(model: Model) -> tuple[float, bool]:
    return model.spec.serve.log_payloads, model.spec.monitor.replay


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
