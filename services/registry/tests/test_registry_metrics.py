"""What the registry's metrics say of models, as Prometheus scrapes it."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families
from registry_fakes import Platform, evaluation, make_bundle, role

LEARNED_UNTIL = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def scraped(platform: Platform, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Return the series of a metric that carry these labels, by the values of their other labels."""
    platform.show_metrics()
    families = text_string_to_metric_families(platform.http.get("/metrics").text)
    samples = [
        sample for family in families for sample in family.samples if sample.name == f"modelyard_registry_{name}"
    ]
    return {
        tuple(value for key, value in sorted(sample.labels.items()) if key not in labels): sample.value
        for sample in samples
        if labels.items() <= sample.labels.items()
    }


def test_a_model_without_a_version_has_no_champion_and_no_rollout(platform: Platform) -> None:
    platform.apply()

    assert scraped(platform, "champion_number", model="m") == {(): 0}
    assert scraped(platform, "rollout_step_number", model="m") == {(): 0}
    assert scraped(platform, "champion_since_seconds") == {}
    assert scraped(platform, "rollouts_count") == {("running",): 0, ("paused",): 0}


def test_the_champion_is_shown_with_its_age_and_that_of_its_data(platform: Platform) -> None:
    platform.apply()
    platform.champion()

    assert scraped(platform, "champion_number", model="m") == {(): 1}
    assert scraped(platform, "champion_since_seconds", model="m") == {("first",): platform.clock.now().timestamp()}
    assert scraped(platform, "champion_data_until_seconds", model="m") == {(): LEARNED_UNTIL}


def test_a_rollout_shows_its_step_its_share_and_since_when(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    shadow = scraped(platform, "candidate_weight_percent", model="m")
    platform.clock.advance(60)
    platform.evidence.good(platform.routing()["revision"])
    platform.advance()

    assert shadow == {(): 0}
    assert scraped(platform, "candidate_number", model="m") == {(): 2}
    assert scraped(platform, "candidate_weight_percent", model="m") == {(): 25}
    assert scraped(platform, "rollout_step_number", model="m") == {(): 2}
    assert scraped(platform, "rollout_step_started_seconds", model="m") == {(): platform.clock.now().timestamp()}
    assert scraped(platform, "rollouts_count") == {("running",): 1, ("paused",): 0}


def test_a_rollback_is_told_from_a_promotion(platform: Platform) -> None:
    platform.apply()
    platform.better(platform.champion())
    platform.roll_out()
    promoted = scraped(platform, "champion_since_seconds", model="m")
    platform.http.post("/v1/models/m/rollback", json={"reason": "it was better before"}).raise_for_status()

    assert list(promoted) == [("new",)]
    assert list(scraped(platform, "champion_since_seconds", model="m")) == [("rollback",)]


def test_what_waits_for_approval_is_shown_since_it_was_asked_for_until_it_is_decided(platform: Platform) -> None:
    platform.apply(rollout={"promote": "manual"})
    assert scraped(platform, "promotion_waiting_since_seconds") == {}
    asked = platform.clock.now().timestamp()
    first = make_bundle()
    platform.register(first, evaluation("test", **{role("candidate", first): 0.7}))
    platform.clock.advance(3600)
    second = make_bundle(weight="w2")
    platform.register(second, evaluation("test", **{role("candidate", second): 0.8}))
    both = scraped(platform, "promotion_waiting_since_seconds", model="m")

    newest, oldest = platform.http.get("/v1/models/m/promotions").json()["items"]
    assert newest["state"] == oldest["state"] == "pending"
    platform.http.post(f"/v1/promotions/{newest['id']}/approve").raise_for_status()

    assert both == {(): asked}
    # The older one is still open, and old news.
    assert scraped(platform, "promotion_waiting_since_seconds") == {}


def test_a_newer_request_waits_on_when_an_older_one_is_rejected(platform: Platform) -> None:
    platform.apply(rollout={"promote": "manual"})
    first, second = make_bundle(), make_bundle(weight="w2")
    platform.register(first, evaluation("test", **{role("candidate", first): 0.7}))
    platform.clock.advance(3600)
    platform.register(second, evaluation("test", **{role("candidate", second): 0.8}))

    oldest = platform.http.get("/v1/models/m/promotions").json()["items"][-1]
    platform.http.post(f"/v1/promotions/{oldest['id']}/reject").raise_for_status()

    assert scraped(platform, "promotion_waiting_since_seconds") == {("m",): platform.clock.now().timestamp()}


def test_every_decision_is_counted_from_zero(platform: Platform) -> None:
    platform.apply("judged")
    before = scraped(platform, "verdicts_total", model="judged")

    assert before == {(decision,): 0 for decision in ("promote", "promote_predecessor", "keep", "insufficient", "hold")}


def test_every_outcome_of_the_proxy_is_counted_from_zero(platform: Platform) -> None:
    outcomes = {outcome for (outcome,) in scraped(platform, "proxy_requests_total")}

    assert outcomes == {"passed", "governed", "refused", "unavailable", "too_large"}


def test_a_deleted_model_leaves_the_scrape(platform: Platform) -> None:
    platform.apply()
    platform.champion()
    assert scraped(platform, "routing_revision", model="m")

    platform.http.delete("/v1/models/m").raise_for_status()

    for name in ("routing_revision", "champion_number", "champion_since_seconds", "rollout_step_number"):
        assert scraped(platform, name, model="m") == {}
