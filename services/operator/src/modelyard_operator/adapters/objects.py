"""``ManagedModel`` objects through the API server: read whole, written only in their status and finalizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from modelyard_common.cluster import Cluster, Document
from modelyard_common.logs import get_logger
from modelyard_contracts.managed_model_status_v1alpha1 import ManagedModelStatus
from modelyard_contracts.managed_model_v1alpha1 import API_VERSION, KIND, ManagedModel, ManifestError, parse_manifest
from pydantic import ValidationError

from modelyard_operator.domain.observed import ManagedObject
from modelyard_operator.domain.ports import Change

__all__ = ["ClusterObjects", "object_of"]

log = get_logger(__name__)


class ClusterObjects:
    """The objects of one namespace.

    Args:
        cluster: where.
        namespace: of the objects.
        watch_s: how long one watch lasts; a stop of the process waits for it.
        page: how many objects are asked for at once.
    """

    def __init__(self, cluster: Cluster, *, namespace: str, watch_s: float, page: int = 500) -> None:
        self._cluster = cluster
        self._path = f"/apis/{API_VERSION}/namespaces/{namespace}/managedmodels"
        self._watch_s = watch_s
        self._page = page

    def all(self) -> Sequence[ManagedObject]:
        """Return all objects; see the port."""
        found: list[ManagedObject] = []
        following: str | None = None
        while True:
            page = self._cluster.get(self._path, limit=self._page, **{"continue": following})
            found.extend(object_of(item) for item in page["items"])
            following = page["metadata"].get("continue")
            if not following:
                return found

    def changes(self, since: str | None) -> Iterator[Change]:
        """Yield what happens; see the port."""
        if since is None:
            since = self._cluster.get(self._path, limit=1)["metadata"]["resourceVersion"]
            yield Change(since, "", None)
        for event in self._cluster.watch(self._path, resource_version=since, timeout_s=self._watch_s):
            meta = event["object"]["metadata"]
            if event["type"] == "BOOKMARK":
                yield Change(meta["resourceVersion"], "", None)
            else:
                mark = None if event["type"] == "DELETED" else (meta["generation"], "deletionTimestamp" in meta)
                yield Change(meta["resourceVersion"], meta["name"], mark)

    def set_finalizers(self, found: ManagedObject, finalizers: tuple[str, ...]) -> ManagedObject:
        """Replace the finalizers; see the port."""
        meta = {"resourceVersion": found.version, "finalizers": list(finalizers)}
        return object_of(self._cluster.patch(f"{self._path}/{found.name}", {"metadata": meta}))

    def write_status(self, found: ManagedObject, status: ManagedModelStatus) -> ManagedObject:
        """Replace the status; see the port."""
        # In a merge patch null takes a field away: what is None now may have been there before.
        body = {
            "metadata": {"resourceVersion": found.version},
            "status": status.model_dump(mode="json", by_alias=True),
        }
        return object_of(self._cluster.patch(f"{self._path}/{found.name}/status", body))


def object_of(document: Document) -> ManagedObject:
    """Return the object that a document is; what cannot be read of it is said, never guessed."""
    meta = document["metadata"]
    manifest, fault = _manifest(meta["name"], document.get("spec"))
    return ManagedObject(
        name=meta["name"],
        generation=meta["generation"],
        version=meta["resourceVersion"],
        manifest=manifest,
        fault=fault,
        finalizers=tuple(meta.get("finalizers", ())),
        deleting="deletionTimestamp" in meta,
        status=_status(meta["name"], document.get("status") or {}),
    )


def _manifest(name: str, spec: Any) -> tuple[ManagedModel | None, str]:
    """Return the manifest with nothing of Kubernetes' own bookkeeping, or why it is none."""
    try:
        manifest = parse_manifest({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec})
    except ManifestError as exc:
        return None, str(exc)
    return manifest, ""


def _status(name: str, document: Document) -> ManagedModelStatus:
    try:
        return ManagedModelStatus.model_validate(document)
    except ValidationError as exc:
        # Of another release, or of somebody else; it is only written anew.
        log.warning("status.unreadable", model=name, fields=[".".join(map(str, e["loc"])) for e in exc.errors()][:5])
        return ManagedModelStatus()
