"""The service account that this process runs as, as an owner of what it makes.

What a release makes while it runs (the Jobs of training, the operator's Lease) is in no chart, so nothing would remove
it with the release. Owned by the account that made it, it goes when the account goes: the cluster's garbage collector
does it, and nobody needs a right to delete. The token that the kubelet projects into every pod names the account with
its uid (Kubernetes documentation, "Managing Service Accounts", bound tokens), so no right to read it is needed either.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

__all__ = ["owner_reference"]

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def owner_reference(namespace: str, token_file: Path = _TOKEN) -> dict[str, Any] | None:
    """Return the owner of objects in a namespace; None outside a pod, and for another namespace than the pod's.

    An owner in another namespace counts as gone: what it owned would be removed at once.
    """
    try:
        payload = token_file.read_text().split(".")[1]
        # The signature is the API server's to check; this only reads who we are.
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kubernetes.io"]
        account = claims["serviceaccount"]
        mine = {"apiVersion": "v1", "kind": "ServiceAccount", "name": account["name"], "uid": account["uid"]}
        return mine if claims["namespace"] == namespace else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
