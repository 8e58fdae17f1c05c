"""The typed client and the registry mean the same; many at once do not disturb each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from modelyard_client import RegistryClient
from modelyard_common.errors import Conflict, Invalid, NotFound
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_contracts.registry_v1 import PromotionRequest, RegisterVersionRequest, RollbackRequest, RuntimeReport
from registry_fakes import FakeBundle, Platform, document, make_bundle


def offered(platform: Platform, bundle: FakeBundle) -> RegisterVersionRequest:
    return RegisterVersionRequest(digest=bundle.digest, mlflow_run_id=platform.mlflow.add_run(bundle), run="external")


def test_client_walks_a_model_through_its_life(platform: Platform, tmp_path: Path) -> None:
    first, second = make_bundle(weight="w1"), make_bundle(weight="w2")
    with RegistryClient(str(platform.http.base_url)) as client:
        applied = client.apply(parse_manifest(document(gate=[])))
        assert client.model("m") == applied == client.models()[0]
        assert client.register("m", offered(platform, first)).state == "champion"
        folder = client.download_bundle("m", first.digest, tmp_path / "bundle")
        assert (folder / "data" / "baseline.json").read_bytes() == first.files["data/baseline.json"]
        assert client.register("m", offered(platform, second)).state == "candidate"
        assert client.pause("m").state == "paused"
        assert client.resume("m").state == "running"
        assert client.abort("m", "enough").state == "aborted"
        assert client.promote("m", PromotionRequest(version=2, direct=True)).state == "approved"
        assert client.rollback("m", RollbackRequest()).candidate == first.digest
        routing = client.routing("m")
        client.report(
            "m", RuntimeReport(instance="i", digest=first.digest, revision=routing.revision, outcome="serving")
        )
        assert [version.number for version in client.versions("m")] == [2, 1]
        assert client.version("m", 2) == client.version("m", second.digest)
        assert client.rollouts("m")[0].kind == "rollback"
        assert client.ledger("m").intact
        event = next(iter(client.watch()))
        assert (event.kind, event.routing) == ("routing", routing)
        client.delete("m")
        with pytest.raises(NotFound):
            client.model("m")


def test_client_gets_the_errors_that_the_registry_raised(platform: Platform) -> None:
    with RegistryClient(str(platform.http.base_url)) as client:
        client.apply(parse_manifest(document()))
        with pytest.raises(Conflict, match="no previous champion"):
            client.rollback("m", RollbackRequest())
        with pytest.raises(Invalid) as caught:
            client.register("m", offered(platform, make_bundle("other")))
        assert "was made for model 'other'" in caught.value.errors[0].message


def test_many_versions_at_once_get_their_numbers_and_leave_one_champion(any_platform: Platform) -> None:
    any_platform.apply(gate=[])
    bundles = [make_bundle(weight=f"w{number}") for number in range(8)]
    requests = [offered(any_platform, bundle) for bundle in bundles]
    with RegistryClient(str(any_platform.http.base_url)) as client, ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda request: client.register("m", request), requests + requests))
        assert sorted({view.number for view in views}) == list(range(1, 9))
        assert {view.digest: view.number for view in views[:8]} == {view.digest: view.number for view in views[8:]}
        states = [version.state for version in client.versions("m")]
        assert (states.count("champion"), states.count("candidate"), states.count("aborted")) == (1, 1, 6)
        ledger = client.ledger()
        assert ledger.intact
        assert [entry.kind for entry in ledger.items].count("version.registered") == 8


def test_model_that_many_apply_for_the_first_time_is_made_once(any_platform: Platform) -> None:
    with RegistryClient(str(any_platform.http.base_url)) as client, ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda _: client.apply(parse_manifest(document())), range(8)))
    assert {view.generation for view in views} == {1}
    assert any_platform.kinds() == ["model.applied"]
