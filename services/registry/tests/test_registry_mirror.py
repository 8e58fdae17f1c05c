from __future__ import annotations

from registry_fakes import Platform


def test_versions_aliases_and_states_appear_in_mlflow(any_platform: Platform) -> None:
    any_platform.apply()
    first = any_platform.champion()
    second = any_platform.better(first)
    assert any_platform.mirror() == 1
    shown = any_platform.mlflow.models["m"]
    assert shown["aliases"] == {"champion": "1", "candidate": "2"}
    assert [version["tags"]["modelyard.digest"] for version in shown["versions"]] == [first.digest, second.digest]
    assert [version["tags"]["modelyard.state"] for version in shown["versions"]] == ["champion", "candidate"]
    assert shown["versions"][0]["source"] == "mlflow-artifacts:/1/run0/artifacts/bundle"
    any_platform.roll_out()
    any_platform.mirror()
    assert shown["aliases"] == {"champion": "2"}
    assert shown["versions"][0]["tags"]["modelyard.state"] == "retired"
    assert any_platform.http.get("/v1/models/m/versions/1").json()["mirrored"] is True


def test_mirror_rests_when_there_is_nothing_to_do(platform: Platform) -> None:
    platform.apply()
    platform.mirror()
    calls = len(platform.mlflow.calls)
    assert platform.mirror() == 0
    assert len(platform.mlflow.calls) == calls


def test_work_survives_an_mlflow_that_is_away_and_waits_longer_each_time(platform: Platform) -> None:
    platform.apply()
    platform.champion()
    platform.mlflow.down = True
    assert platform.mirror() == 0
    platform.mlflow.down = False
    assert platform.mirror() == 0, "it is not due yet"
    platform.clock.advance(0.6)
    assert platform.mirror() == 1
    assert platform.mlflow.models["m"]["aliases"] == {"champion": "1"}


def test_lost_answer_to_a_version_create_makes_no_second_version(platform: Platform) -> None:
    platform.apply()
    platform.champion()
    platform.mlflow.lose_next_create = True
    assert platform.mirror() == 0
    platform.clock.advance(60)
    assert platform.mirror() == 1
    assert len(platform.mlflow.models["m"]["versions"]) == 1


def test_number_that_somebody_else_took_is_mapped(platform: Platform) -> None:
    platform.mlflow.models["m"] = {
        "versions": [{"version": "1", "tags": {"modelyard.digest": ""}}],
        "aliases": {"mine": "1"},
    }
    platform.apply()
    platform.champion()
    platform.mirror()
    assert platform.mlflow.models["m"]["aliases"] == {"mine": "1", "champion": "2"}


def test_change_that_comes_during_the_work_is_not_lost(platform: Platform) -> None:
    platform.apply()
    champion = platform.champion()
    platform.mirror()
    platform.better(champion)
    platform.http.post("/v1/models/m/rollout/abort", json={})
    assert platform.mirror() == 1
    shown = platform.mlflow.models["m"]
    assert shown["aliases"] == {"champion": "1"}
    assert shown["versions"][1]["tags"]["modelyard.state"] == "aborted"
