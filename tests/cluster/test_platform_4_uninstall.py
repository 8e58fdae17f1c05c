"""What a release leaves when it goes: what its user made, and nothing of its own."""

from __future__ import annotations

import pytest

from tests.cluster.installation import Installation
from tests.cluster.managed_model import MODEL

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600, func_only=True)]


def test_uninstall_leaves_nothing_behind(platform: Installation) -> None:
    platform.kubectl("delete", f"mm/{MODEL}", "--ignore-not-found", timeout_s=90)
    platform.uninstall()

    def left() -> list[str]:
        kinds = "all,ingresses,networkpolicies,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,pvc,pdb,hpa"
        return platform.kubectl("get", kinds, "--selector=modelyard.dev/platform", "--output=name").split()

    platform.eventually(lambda: left() == [], timeout_s=90)
