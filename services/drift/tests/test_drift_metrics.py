"""What drift's metrics say of models, as Prometheus scrapes it; on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from drift_fakes import MODEL, START, V2, World, spec
from prometheus_client.parser import text_string_to_metric_families


def scraped(world: World, name: str) -> dict[tuple[str, ...], float]:
    """Return the series of a metric, by the values of their labels other than the model's."""
    world.show_metrics()
    families = text_string_to_metric_families(world.client.get("/metrics").text)
    return {
        tuple(value for label, value in sorted(sample.labels.items()) if label != "model"): sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"modelyard_drift_{name}" and sample.labels.get("model", MODEL) == MODEL
    }


def test_a_model_that_nobody_asked_yet_is_shown_as_unknown(world: World) -> None:
    assert scraped(world, "severity_level") == {(): -1}
    assert scraped(world, "windows_count") == {(): 0}
    assert scraped(world, "watermark_seconds") == {}
    assert scraped(world, "episodes_total") == {(): 0}


def test_the_last_scored_window_is_shown_by_feature(world: World) -> None:
    world.send(world.rows(100, heat=3.0))
    psi = scraped(world, "feature_psi_ratio")

    assert set(psi) == {("heat",), ("noise",), ("prediction",)}
    assert psi["heat",] > 0.25 > psi["noise",]
    assert scraped(world, "severity_level") == {(): 2}
    assert scraped(world, "windows_count") == {(): 1}
    assert scraped(world, "requests_rows") == {(): 100}
    assert scraped(world, "watermark_seconds") == {(): START.timestamp() + 99 * 60}


def test_an_episode_and_its_decision_are_shown_and_counted(world: World) -> None:
    world.send(world.rows(100, heat=3.0))
    opened = scraped(world, "open_episodes_count")
    decisions = scraped(world, "decisions_total")

    assert opened == {("low",): 0, ("high",): 1, ("critical",): 0}
    assert scraped(world, "episodes_total") == {(): 1}
    assert decisions["command",] == 1
    assert {kind: number for kind, number in decisions.items() if number} == {("command",): 1}
    assert len(decisions) == 8


def test_what_was_found_against_a_former_champion_is_not_said_of_the_present_one(world: World) -> None:
    world.send(world.rows(100, heat=3.0))
    assert scraped(world, "severity_level") == {(): 2}

    world.send(world.rows(10, heat=3.0, revision=2, champion=V2, version=V2))

    assert scraped(world, "severity_level") == {(): -1}
    assert scraped(world, "feature_psi_ratio") == {}
    world.send(world.rows(90, heat=3.0, revision=2, champion=V2, version=V2))
    assert scraped(world, "severity_level") == {(): 0}


def test_performance_is_that_of_the_newest_window_with_labels_beside_its_bound(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    [policy] = world.registry.known
    when = [{"performance": {"metric": "accuracy", "below": 0.6}}]
    world.registry.known = [replace(policy, spec=spec(train__when=when), spec_digest="sha256:" + "8" * 64)]
    world.refresh()
    world.send(world.rows(100))
    truth = [{"prediction_id": row["id"], "value": row["prediction"]} for row in world.last]
    world.label(truth[:75] + [label | {"value": 1 - label["value"]} for label in truth[75:]])
    world.send(world.rows(100))

    assert scraped(world, "windows_count") == {(): 2}
    assert scraped(world, "performance_ratio") == {("accuracy",): 0.75}
    assert scraped(world, "performance_bound_ratio") == {("accuracy",): 0.6}
    assert scraped(world, "labelled_rows") == {(): 100}


def test_a_deleted_model_leaves_the_scrape(world: World) -> None:
    world.send(world.rows(100, heat=3.0))
    assert scraped(world, "feature_psi_ratio")

    [policy] = world.registry.known
    world.registry.known = [replace(policy, deleted=True)]
    world.refresh()

    for name in ("feature_psi_ratio", "severity_level", "decisions_total", "open_episodes_count", "requests_rows"):
        assert scraped(world, name) == {}
