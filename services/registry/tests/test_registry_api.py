from __future__ import annotations

from typing import Any

import pytest
from registry_fakes import SPEC, Platform, document, evaluation, make_bundle, role


def test_applying_twice_changes_nothing(platform: Platform) -> None:
    first = platform.apply()
    again = platform.http.put("/v1/models/m", json=document())
    assert again.status_code == 200
    assert again.json() == first
    assert first["generation"] == 1
    assert platform.apply(description="new words")["generation"] == 2
    assert platform.kinds() == ["model.applied", "model.applied"]


def test_training_digest_stays_when_only_the_policy_changes(platform: Platform) -> None:
    before = platform.apply()
    after = platform.apply(gate=[])
    assert after["training_digest"] == before["training_digest"]
    assert after["spec_digest"] != before["spec_digest"]


def test_wrong_manifest_names_every_field(platform: Platform) -> None:
    wrong = document(task="guessing", gate=[{"metric": "luck", "min": 1}])
    answer = platform.http.put("/v1/models/m", json=wrong)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {error["path"] for error in answer.json()["errors"]} == {"spec.task", "spec.gate[0].metric"}


@pytest.mark.parametrize(
    ("name", "path"),
    [("other", "metadata.name"), ("Not_A_Name", "name")],
)
def test_name_in_the_address_has_to_fit(platform: Platform, name: str, path: str) -> None:
    answer = platform.http.put(f"/v1/models/{name}", json=document())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == path


def test_body_that_is_no_json_is_a_clear_error(platform: Platform) -> None:
    answer = platform.http.put("/v1/models/m", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "the body is not JSON"


def test_unknown_model_is_404_everywhere(platform: Platform) -> None:
    for path in ("", "/versions", "/versions/1", "/routing", "/rollouts", "/promotions", "/versions/1/files/x"):
        assert platform.http.get(f"/v1/models/nope{path}").status_code == 404, path
    body = {"digest": "sha256:" + "0" * 64, "mlflow_run_id": "r", "run": "r"}
    assert platform.http.post("/v1/models/nope/versions", json=body).status_code == 404
    assert platform.http.delete("/v1/models/nope").status_code == 404


def test_models_are_listed_in_pages(platform: Platform) -> None:
    for name in ("c", "a", "b"):
        platform.apply(name)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = platform.http.get("/v1/models", params=query).json()
        seen += [model["name"] for model in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["a", "b", "c"]
    assert platform.http.get("/v1/models", params={"cursor": "%%"}).status_code == 422


def test_first_version_is_champion_at_once_and_the_verdict_says_why(any_platform: Platform) -> None:
    any_platform.apply()
    bundle = any_platform.champion()
    model = any_platform.model()
    assert model["champion"]["number"] == 1
    assert model["last_verdict"]["decision"] == "promote"
    assert "no champion yet" in model["last_verdict"]["reason"]
    assert any_platform.routing()["champion"] == {"number": 1, "digest": bundle.digest}
    assert [step["outcome"] for step in model["rollout"]["steps"]] == ["skipped", "skipped"]
    assert any_platform.kinds() == [
        "model.applied",
        "version.registered",
        "version.judged",
        "rollout.started",
        "rollout.completed",
        "champion.changed",
    ]


def test_registering_a_digest_again_answers_with_the_version_as_it_is(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    body = {"digest": bundle.digest, "mlflow_run_id": "whatever", "run": "again"}
    answer = platform.http.post("/v1/models/m/versions", json=body)
    assert (answer.status_code, answer.json()["number"], answer.json()["run"]) == (200, 1, "r")


def test_version_is_found_by_number_and_by_digest(platform: Platform) -> None:
    platform.apply()
    bundle = platform.champion()
    by_number = platform.http.get("/v1/models/m/versions/1").json()
    assert by_number == platform.http.get(f"/v1/models/m/versions/{bundle.digest}").json()
    assert by_number["manifest"]["lineage"]["estimator"] == "logistic_regression"
    assert platform.http.get("/v1/models/m/versions/2").status_code == 404
    assert platform.http.get("/v1/models/m/versions/latest").status_code == 404


def test_worse_version_is_refused_and_the_champion_stays(platform: Platform) -> None:
    platform.apply()
    champion = platform.champion()
    platform.better(champion, by=0.001)
    model = platform.model()
    assert model["last_verdict"]["decision"] == "keep"
    assert model["champion"]["digest"] == champion.digest
    assert platform.http.get("/v1/models/m/versions/2").json()["state"] == "refused"


def test_rollout_walks_its_steps_with_a_revision_each_and_ends_as_champion(any_platform: Platform) -> None:
    any_platform.apply()
    first = any_platform.champion()
    second = any_platform.better(first)
    shadow = any_platform.routing()
    assert shadow["candidate"] == {"number": 2, "digest": second.digest, "weight": 0, "shadow": True}
    any_platform.roll_out()
    model = any_platform.model()
    assert model["champion"]["digest"] == second.digest
    assert [version["digest"] for version in model["contenders"]] == [first.digest]
    steps = model["rollout"]["steps"]
    assert [step["outcome"] for step in steps] == ["passed", "passed"]
    assert steps[0]["revision"] == shadow["revision"]
    assert steps[1]["revision"] == shadow["revision"] + 1
    assert any_platform.routing()["revision"] == shadow["revision"] + 2
    assert steps[0]["evidence"]["candidate"]["responses"] == 1000


def test_rollout_holds_while_drift_is_away_and_says_so(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    platform.evidence.away = "connection refused"
    assert platform.advance() == 0
    assert "connection refused" in platform.model()["rollout"]["waiting_for"]
    platform.evidence.away = ""
    platform.roll_out()
    assert platform.model()["rollout"]["state"] == "completed"


def test_rollout_says_what_it_waits_for(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    platform.evidence.good(platform.routing()["revision"], responses=7)
    platform.advance()
    assert platform.model()["rollout"]["waiting_for"] == "7 of 20 responses of the candidate"


def test_failing_candidate_is_aborted_and_never_becomes_champion(any_platform: Platform) -> None:
    any_platform.apply()
    champion = any_platform.champion()
    candidate = any_platform.better(champion)
    any_platform.evidence.good(any_platform.routing()["revision"], responses=50, errors=40)
    any_platform.advance()
    model = any_platform.model()
    assert model["rollout"]["state"] == "aborted"
    assert "errorRatio 0.8 is above 0.1" in model["rollout"]["reason"]
    assert any_platform.routing()["candidate"] is None
    assert any_platform.routing()["champion"]["digest"] == champion.digest
    assert any_platform.http.get(f"/v1/models/m/versions/{candidate.digest}").json()["state"] == "aborted"
    assert any_platform.advance() == 0


def test_newer_accepted_version_supersedes_the_running_rollout(platform: Platform) -> None:
    platform.apply()
    champion = platform.champion()
    platform.better(champion, "w2")
    third = platform.better(champion, "w3", by=0.08)
    rollouts = platform.http.get("/v1/models/m/rollouts").json()["items"]
    assert [rollout["state"] for rollout in rollouts[:2]] == ["running", "aborted"]
    assert rollouts[1]["reason"] == "superseded by version 3"
    assert platform.routing()["candidate"]["digest"] == third.digest


def test_predecessor_comes_back_without_shadow(platform: Platform) -> None:
    platform.apply()
    first = platform.champion()
    second = platform.better(first)
    platform.roll_out()
    third = make_bundle(weight="w3")
    scores = {role("candidate", third): 0.5, role("champion", second): 0.6, role("contender", first): 0.72}
    view = platform.register(third, evaluation(**scores))
    assert view["verdict"]["decision"] == "promote_predecessor"
    assert view["state"] == "refused"
    assert platform.routing()["candidate"] == {"number": 1, "digest": first.digest, "weight": 25, "shadow": False}
    platform.roll_out()
    assert platform.model()["champion"]["digest"] == first.digest
    assert [version["number"] for version in platform.model()["contenders"]] == [2]


def test_contenders_are_bounded_and_the_latest_come_first(platform: Platform) -> None:
    platform.apply()
    champion = platform.champion()
    for weight in ("w2", "w3", "w4"):
        champion = platform.better(champion, weight)
        platform.roll_out()
    assert [version["number"] for version in platform.model()["contenders"]] == [3, 2]


def test_manual_policy_waits_for_approval(platform: Platform) -> None:
    platform.apply(rollout={"promote": "manual"})
    bundle = make_bundle()
    view = platform.register(bundle, evaluation("test", **{role("candidate", bundle): 0.7}))
    assert view["verdict"]["decision"] == "hold"
    assert platform.model()["champion"] is None
    [promotion] = platform.http.get("/v1/models/m/promotions").json()["items"]
    approved = platform.http.post(f"/v1/promotions/{promotion['id']}/approve")
    assert approved.json()["state"] == "approved"
    assert platform.model()["champion"]["digest"] == bundle.digest
    assert platform.http.post(f"/v1/promotions/{promotion['id']}/approve").status_code == 200
    assert platform.http.post(f"/v1/promotions/{promotion['id']}/reject").status_code == 409
    assert platform.http.post("/v1/promotions/nope/reject").status_code == 404


def test_promotions_are_listed_by_their_state_and_only_those_that_there_are(platform: Platform) -> None:
    platform.apply(rollout={"promote": "manual"})

    def listed(state: str) -> list[str]:
        items = platform.http.get("/v1/models/m/promotions", params={"state": state}).json()["items"]
        return [item["id"] for item in items]

    platform.register(bundle := make_bundle(), evaluation("test", **{role("candidate", bundle): 0.7}))
    [waits] = listed("pending")
    platform.http.post(f"/v1/promotions/{waits}/reject").raise_for_status()

    assert (listed("pending"), listed("rejected"), listed("approved")) == ([], [waits], [])
    wrong = platform.http.get("/v1/models/m/promotions", params={"state": "lost"})
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (422, "state")


def test_rejected_promotion_changes_no_routing(platform: Platform) -> None:
    platform.apply(rollout={"promote": "manual"})
    bundle = make_bundle()
    platform.register(bundle, evaluation("test", **{role("candidate", bundle): 0.7}))
    [promotion] = platform.http.get("/v1/models/m/promotions").json()["items"]
    assert platform.http.post(f"/v1/promotions/{promotion['id']}/reject").json()["state"] == "rejected"
    assert platform.routing()["champion"] is None
    assert platform.http.get("/v1/models/m/versions/1").json()["state"] == "refused"


def test_promotion_by_hand_takes_the_steps_unless_it_is_direct(platform: Platform) -> None:
    platform.apply()
    champion = platform.champion()
    refused = platform.better(champion, by=-0.1)
    answer = platform.http.post("/v1/models/m/promotions", json={"version": 2, "reason": "I know better"})
    assert answer.status_code == 201
    assert platform.model()["rollout"]["kind"] == "manual"
    assert platform.routing()["candidate"]["digest"] == refused.digest
    platform.http.post("/v1/models/m/promotions", json={"version": refused.digest, "direct": True})
    assert platform.model()["champion"]["digest"] == refused.digest
    again = platform.http.post("/v1/models/m/promotions", json={"version": 2})
    assert again.status_code == 409


def test_command_with_an_idempotency_key_happens_once(any_platform: Platform) -> None:
    any_platform.apply()
    champion = any_platform.champion()
    any_platform.better(champion, by=-0.1)
    asked: dict[str, Any] = {"json": {"version": 2, "direct": True}, "headers": {"Idempotency-Key": "k1"}}
    first = any_platform.http.post("/v1/models/m/promotions", **asked)
    second = any_platform.http.post("/v1/models/m/promotions", **asked)
    assert first.json() == second.json()
    other = any_platform.http.post("/v1/models/m/promotions", json={"version": 1}, headers=asked["headers"])
    assert other.status_code == 409


def test_rollback_returns_to_the_previous_champion_at_once(any_platform: Platform) -> None:
    any_platform.apply()
    first = any_platform.champion()
    second = any_platform.better(first)
    any_platform.roll_out()
    answer = any_platform.http.post("/v1/models/m/rollback", json={"reason": "it smells"})
    assert (answer.json()["kind"], answer.json()["state"]) == ("rollback", "completed")
    model = any_platform.model()
    assert model["champion"]["digest"] == first.digest
    assert model["contenders"] == [], "a version that was rolled back is not brought back by the gates"
    again = any_platform.http.post("/v1/models/m/rollback", json={})
    assert again.status_code == 409
    back = any_platform.http.post("/v1/models/m/rollback", json={"to": second.digest})
    assert back.status_code == 200
    assert any_platform.model()["champion"]["digest"] == second.digest


def test_rollback_ends_a_rollout_that_is_under_way(platform: Platform) -> None:
    platform.apply()
    first = platform.champion()
    second = platform.better(first)
    platform.roll_out()
    platform.better(second, "w3")
    platform.http.post("/v1/models/m/rollback", json={})
    assert platform.routing()["candidate"] is None
    assert platform.routing()["champion"]["digest"] == first.digest


def test_paused_rollout_goes_on_only_after_resume(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    paused = platform.http.post("/v1/models/m/rollout/pause", json={"reason": "lunch"})
    assert paused.json()["state"] == "paused"
    platform.evidence.good(platform.routing()["revision"])
    assert platform.advance() == 0
    assert platform.http.post("/v1/models/m/rollout/pause", json={}).status_code == 200
    platform.http.post("/v1/models/m/rollout/resume", json={})
    assert platform.advance() == 1


def test_rollout_is_aborted_by_hand(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    answer = platform.http.post("/v1/models/m/rollout/abort", json={"reason": "not today"})
    assert (answer.json()["state"], answer.json()["reason"]) == ("aborted", "not today")
    assert platform.http.post("/v1/models/m/rollout/abort", json={}).status_code == 409


@pytest.mark.parametrize("outcome", ["refused", "tripped"])
def test_inference_that_will_not_serve_the_candidate_ends_its_rollout(platform: Platform, outcome: str) -> None:
    platform.apply()
    champion = platform.champion()
    candidate = platform.better(champion)
    report = {
        "instance": "i1",
        "digest": candidate.digest,
        "revision": platform.routing()["revision"],
        "outcome": outcome,
        "reason": "probe row 3 differs",
    }
    assert platform.http.post("/v1/models/m/runtime-reports", json=report).status_code == 204
    assert platform.model()["rollout"]["reason"] == f"{outcome} by i1: probe row 3 differs"
    assert platform.routing()["candidate"] is None
    platform.http.post("/v1/models/m/runtime-reports", json=report)
    assert platform.kinds().count(f"runtime.{outcome}") == 1


def test_report_about_an_earlier_rollout_aborts_nothing(platform: Platform) -> None:
    platform.apply()
    candidate = platform.better(platform.champion())
    report = {"instance": "i1", "digest": candidate.digest, "revision": 1, "outcome": "refused"}
    platform.http.post("/v1/models/m/runtime-reports", json=report)
    assert platform.model()["rollout"]["state"] == "running"


def test_pinned_version_is_rolled_out_by_the_manifest_and_nothing_else_is(platform: Platform) -> None:
    platform.apply()
    first = platform.champion()
    second = platform.better(first)
    platform.roll_out()
    platform.apply(rollout={"promote": "pinned", "version": first.digest})
    assert platform.model()["champion"]["digest"] == first.digest
    assert platform.http.post("/v1/models/m/promotions", json={"version": 2}).status_code == 409
    assert platform.http.post("/v1/models/m/rollback", json={"to": second.digest}).status_code == 409
    platform.better(first, "w3")
    assert platform.model()["last_verdict"]["decision"] == "keep"


def test_paused_model_keeps_its_rollout_where_it_is(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    platform.apply(paused=True)
    platform.evidence.good(platform.routing()["revision"])
    assert platform.advance() == 0
    assert "paused" in platform.model()["rollout"]["waiting_for"]


def test_changed_payload_policy_is_a_new_revision_and_the_step_counts_anew(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    before = platform.routing()
    platform.apply(serve={"logPayloads": 0.5})
    after = platform.routing()
    assert after["revision"] == before["revision"] + 1
    assert (after["log_payloads"], after["candidate"]) == (0.5, before["candidate"])
    assert platform.model()["rollout"]["steps"][0]["revision"] == after["revision"]


def test_what_is_redacted_is_told_to_the_servers_at_once(platform: Platform) -> None:
    alone: dict[str, Any] = {"train": SPEC["train"] | {"learnFrom": {"feedback": False}}, "gate": []}
    platform.apply(**alone)
    before = platform.routing()
    platform.apply(**alone, serve={"redact": ["x"]})
    after = platform.routing()
    assert (before["redact"], after["redact"]) == ([], ["x"])
    assert after["revision"] == before["revision"] + 1


def test_how_much_runs_at_once_is_told_to_the_servers_at_once(platform: Platform) -> None:
    platform.apply()
    before = platform.routing()
    platform.apply(serve={"batchRows": 8})
    after = platform.routing()
    assert (before["batch_rows"], after["batch_rows"]) == (None, 8)
    assert after["revision"] == before["revision"] + 1


def test_deleted_model_is_gone_and_revived_with_its_champion(platform: Platform) -> None:
    platform.apply()
    champion = platform.champion()
    assert platform.http.delete("/v1/models/m").status_code == 204
    assert platform.http.get("/v1/models/m").status_code == 404
    assert platform.routing()["deleted"] is True
    assert platform.routing()["champion"] is None
    assert platform.http.get("/v1/models").json()["items"] == []
    revived = platform.apply()
    assert revived["generation"] == 2
    assert platform.routing()["champion"]["digest"] == champion.digest


def test_deletion_policy_delete_gives_up_versions_but_not_the_ledger(platform: Platform) -> None:
    platform.apply(deletionPolicy="delete")
    bundle = platform.champion()
    platform.mirror()
    assert "m" in platform.mlflow.models
    cache = platform.settings.data_dir / "cache" / bundle.digest.removeprefix("sha256:")
    assert cache.exists()
    platform.http.delete("/v1/models/m")
    platform.mirror()
    assert "m" not in platform.mlflow.models
    assert not cache.exists()
    assert "champion.changed" in platform.kinds()
    platform.apply()
    assert platform.model()["champion"] is None


def test_bundle_of_another_task_or_model_is_refused(platform: Platform) -> None:
    platform.apply()
    platform.apply("other", task="regression", gate=[])
    bundle = make_bundle("m")
    body = {"digest": bundle.digest, "mlflow_run_id": platform.mlflow.add_run(bundle), "run": "r"}
    answer = platform.http.post("/v1/models/other/versions", json=body)
    assert answer.status_code == 422
    messages = " ".join(error["message"] for error in answer.json()["errors"])
    assert "was made for model 'm'" in messages
    assert "the bundle's task is classification" in messages
    assert platform.http.get("/v1/models/other/versions").json()["items"] == []


def test_evaluation_of_another_candidate_is_refused(platform: Platform) -> None:
    platform.apply()
    bundle, other = make_bundle(), make_bundle(weight="w9")
    body = {
        "digest": bundle.digest,
        "mlflow_run_id": platform.mlflow.add_run(bundle),
        "run": "r",
        "evaluation": evaluation("test", **{role("candidate", other): 0.9}),
    }
    answer = platform.http.post("/v1/models/m/versions", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "evaluation.scores"


def test_health_names_mlflow_and_stays_ready_without_it(platform: Platform) -> None:
    platform.mlflow.down = True
    answer = platform.http.get("/health/ready")
    assert answer.status_code == 200
    assert "cannot be reached" in answer.json()["checks"]["mlflow"]
    assert answer.json()["checks"]["database"] == "ok"
