"""Who we are to the cluster is read from our own token, and never claimed for another namespace."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from modelyard_common.cluster_account import owner_reference

ACCOUNT = {"name": "modelyard-training", "uid": "5d1c2f0e-5a3b-4a51-9a3d-3f1f3f3f3f3f"}
CLAIMS = {"kubernetes.io": {"namespace": "ml", "serviceaccount": ACCOUNT, "pod": {"name": "a", "uid": "b"}}}


def _token(folder: Path, claims: Any) -> Path:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    file = folder / "token"
    file.write_text(f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmVk")
    return file


def test_the_account_of_the_pod_owns_what_is_made_in_its_namespace(tmp_path: Path) -> None:
    owner = owner_reference("ml", _token(tmp_path, CLAIMS))

    assert owner == {"apiVersion": "v1", "kind": "ServiceAccount", **ACCOUNT}


def test_an_account_owns_nothing_in_another_namespace(tmp_path: Path) -> None:
    assert owner_reference("jobs", _token(tmp_path, CLAIMS)) is None


@pytest.mark.parametrize("claims", [{"sub": "system:serviceaccount:ml:a"}, [], {"kubernetes.io": None}])
def test_a_token_that_names_no_account_with_its_uid_makes_no_owner(tmp_path: Path, claims: Any) -> None:
    assert owner_reference("ml", _token(tmp_path, claims)) is None


@pytest.mark.parametrize("text", ["", "not a token", "a.%%%.c"])
def test_what_is_no_token_makes_no_owner(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)

    assert owner_reference("ml", file) is None


def test_outside_a_pod_there_is_no_owner(tmp_path: Path) -> None:
    assert owner_reference("ml", tmp_path / "absent") is None
