"""The operator's Lease, as the API server keeps it."""

from __future__ import annotations

from modelyard_common.cluster import Cluster, Document
from modelyard_common.errors import NotFound

from modelyard_operator.domain.lease import Lease

__all__ = ["ClusterLeases"]


class ClusterLeases:
    """One Lease of a namespace."""

    def __init__(self, cluster: Cluster, *, namespace: str, name: str, owner: Document | None = None) -> None:
        self._cluster = cluster
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._metadata: Document = {
            "name": name,
            "labels": {"app.kubernetes.io/part-of": "modelyard"},
            **({"ownerReferences": [owner]} if owner else {}),
        }
        self._name = name

    def read(self) -> Lease | None:
        """Return the lease; see the port."""
        try:
            return _lease(self._cluster.get(f"{self._path}/{self._name}"))
        except NotFound:
            return None

    def write(self, lease: Lease) -> Lease:
        """Create or replace the lease; see the port."""
        document: Document = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": dict(self._metadata),
            "spec": {
                # A lease that nobody holds has no holder: the API server refuses an empty one.
                **({"holderIdentity": lease.holder} if lease.holder else {}),
                "acquireTime": lease.acquired,
                "renewTime": lease.renewed,
                "leaseDurationSeconds": lease.duration_s,
                "leaseTransitions": lease.transitions,
            },
        }
        if not lease.version:
            return _lease(self._cluster.create(self._path, document))
        document["metadata"]["resourceVersion"] = lease.version
        return _lease(self._cluster.replace(f"{self._path}/{self._name}", document))


def _lease(document: Document) -> Lease:
    spec = document.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        acquired=spec.get("acquireTime") or "",
        duration_s=int(spec.get("leaseDurationSeconds") or 1),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=document["metadata"]["resourceVersion"],
    )
