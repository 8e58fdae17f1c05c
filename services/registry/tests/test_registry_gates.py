from __future__ import annotations

from datetime import UTC, datetime

import pytest
from modelyard_contracts.managed_model_v1alpha1 import FreshRows, FreshRule, GateRule, Rollout
from modelyard_registry.domain.contention import decide
from modelyard_registry.domain.gates import Contestant, Evidence, Outcome, gain, judge, sentence

NEW = Contestant("sha256:new", "version 3")
OLD = Contestant("sha256:old", "version 2")
PAST = Contestant("sha256:past", "version 1")

FLOOR = GateRule(metric="accuracy", min=0.6)
BETTER = GateRule(metric="accuracy", against="champion", improve_by=0.01)
FRESH = GateRule(
    metric="accuracy", against="champion", improve_by=0.01, on=FreshRule(fresh=FreshRows(rows=1000, min_rows=500))
)
CHEAPER = GateRule(metric="rmse", against="champion", improve_by=0.5)
CEILING = GateRule(metric="rmse", max=3.0)


def fresh(rows: int = 1000, insufficient: str | None = None, **values: float) -> Evidence:
    digests = {"new": NEW.digest, "old": OLD.digest, "past": PAST.digest}
    return Evidence(
        kind="fresh",
        rows=rows,
        values={digests[who]: {"accuracy": value, "rmse": value} for who, value in values.items()},
        insufficient=insufficient,
    )


@pytest.mark.parametrize(
    ("rule", "evidence", "outcome"),
    [
        pytest.param(FLOOR, fresh(new=0.61), Outcome.PASSED, id="above the floor"),
        pytest.param(FLOOR, fresh(new=0.6), Outcome.PASSED, id="exactly the floor"),
        pytest.param(FLOOR, fresh(new=0.59), Outcome.FAILED, id="below the floor"),
        pytest.param(CEILING, fresh(new=2.9), Outcome.PASSED, id="an error under its ceiling"),
        pytest.param(CEILING, fresh(new=3.1), Outcome.FAILED, id="an error over its ceiling"),
        pytest.param(BETTER, fresh(new=0.72, old=0.71), Outcome.PASSED, id="better by exactly what is asked"),
        pytest.param(BETTER, fresh(new=0.715, old=0.71), Outcome.FAILED, id="better by less than asked"),
        pytest.param(BETTER, fresh(new=0.70, old=0.71), Outcome.FAILED, id="worse"),
        pytest.param(CHEAPER, fresh(new=2.0, old=2.6), Outcome.PASSED, id="an error that fell by enough"),
        pytest.param(CHEAPER, fresh(new=2.6, old=2.0), Outcome.FAILED, id="an error that rose"),
        pytest.param(BETTER, fresh(new=0.72), Outcome.INSUFFICIENT, id="the champion was not scored"),
        pytest.param(FLOOR, fresh(old=0.72), Outcome.INSUFFICIENT, id="the candidate was not scored"),
        pytest.param(FRESH, fresh(rows=499, new=0.9, old=0.1), Outcome.INSUFFICIENT, id="too few fresh rows"),
        pytest.param(FRESH, fresh(rows=500, new=0.9, old=0.1), Outcome.PASSED, id="just enough fresh rows"),
        pytest.param(
            FLOOR, fresh(new=0.9, insufficient="12 of 500"), Outcome.INSUFFICIENT, id="the run says that rows are few"
        ),
        pytest.param(FLOOR, None, Outcome.INSUFFICIENT, id="no evaluation came"),
    ],
)
def test_rule_comes_out_as_the_table_says(rule: GateRule, evidence: Evidence | None, outcome: Outcome) -> None:
    [result] = judge([rule], NEW, champion=OLD, evidence=evidence)
    assert result.outcome is outcome, result.reason


def test_relative_rule_passes_without_a_champion_and_says_so() -> None:
    [result] = judge([FRESH], NEW, champion=None, evidence=None)
    assert result.outcome is Outcome.PASSED
    assert "no champion yet" in result.reason


def test_first_version_is_judged_on_test_rows_when_fresh_rows_cannot_exist() -> None:
    rule = GateRule(metric="accuracy", min=0.6, on=FreshRule(fresh=FreshRows()))
    evidence = Evidence(kind="test", rows=900, values={NEW.digest: {"accuracy": 0.7}})
    [first] = judge([rule], NEW, champion=None, evidence=evidence)
    [later] = judge([rule], NEW, champion=OLD, evidence=evidence)
    assert (first.outcome, later.outcome) == (Outcome.PASSED, Outcome.INSUFFICIENT)
    assert later.reason == "this evaluation has no fresh rows"


def test_version_that_may_have_learned_from_the_rows_has_no_value() -> None:
    seen = Contestant(OLD.digest, "version 2", data_until=datetime(2026, 1, 2, tzinfo=UTC))
    evidence = Evidence(
        kind="fresh",
        rows=1000,
        rows_from=datetime(2026, 1, 1, tzinfo=UTC),
        values={NEW.digest: {"accuracy": 0.8}, OLD.digest: {"accuracy": 0.7}},
    )
    [result] = judge([BETTER], NEW, champion=seen, evidence=evidence)
    assert result.outcome is Outcome.INSUFFICIENT
    assert "may have learned" in result.reason


def test_skipped_version_is_explained_by_the_run() -> None:
    evidence = Evidence(kind="fresh", rows=9, values={NEW.digest: {"accuracy": 1}}, skipped={OLD.digest: "too new"})
    [result] = judge([BETTER], NEW, champion=OLD, evidence=evidence)
    assert "too new" in result.reason


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 0.1), ("r2", 0.1), ("rmse", -0.1), ("log_loss", -0.1)])
def test_gain_knows_the_direction_of_a_metric(metric: str, better: float) -> None:
    assert gain(metric, 0.6, 0.5) == pytest.approx(better)


def test_sentences_are_readable() -> None:
    assert sentence(FLOOR) == "accuracy >= 0.6 on the judged rows"
    assert sentence(FRESH) == "accuracy better than the champion's by 0.01 on at least 500 fresh rows"


AUTOMATIC = Rollout()
MANUAL = Rollout(promote="manual")


@pytest.mark.parametrize(
    ("evidence", "rollout", "decision", "chosen"),
    [
        pytest.param(fresh(new=0.75, old=0.70), AUTOMATIC, "promote", NEW, id="the candidate is better"),
        pytest.param(fresh(new=0.70, old=0.70), AUTOMATIC, "keep", None, id="a draw keeps the champion"),
        pytest.param(
            fresh(new=0.72, old=0.70, past=0.74), AUTOMATIC, "promote_predecessor", PAST, id="a predecessor is best"
        ),
        pytest.param(
            fresh(new=0.60, old=0.70, past=0.74),
            AUTOMATIC,
            "promote_predecessor",
            PAST,
            id="only it beats the champion",
        ),
        pytest.param(
            fresh(new=0.74, old=0.70, past=0.74), AUTOMATIC, "promote", NEW, id="between equals the candidate wins"
        ),
        pytest.param(
            fresh(new=0.60, old=0.70, past=0.705), AUTOMATIC, "keep", None, id="a predecessor has to improve enough too"
        ),
        pytest.param(fresh(new=0.75, old=0.70), MANUAL, "hold", NEW, id="manual waits for a person"),
        pytest.param(
            fresh(new=0.60, old=0.70, past=0.74), MANUAL, "hold", PAST, id="manual waits for a predecessor too"
        ),
        pytest.param(
            fresh(rows=12, new=0.9, old=0.1, insufficient="12 of 500 rows"),
            AUTOMATIC,
            "insufficient",
            None,
            id="few rows",
        ),
        pytest.param(None, AUTOMATIC, "insufficient", None, id="no evaluation"),
    ],
)
def test_decision_follows_from_the_numbers(
    evidence: Evidence | None, rollout: Rollout, decision: str, chosen: Contestant | None
) -> None:
    judgement = decide(
        candidate=NEW, champion=OLD, contenders=[PAST], gates=[FLOOR, BETTER], rollout=rollout, evidence=evidence
    )
    assert judgement.decision == decision, judgement.reason
    assert judgement.chosen == (chosen.digest if chosen else None)


def test_first_version_is_promoted_and_the_reason_says_that_nobody_was_there() -> None:
    evidence = Evidence(kind="test", rows=900, values={NEW.digest: {"accuracy": 0.7}})
    judgement = decide(
        candidate=NEW, champion=None, contenders=[], gates=[FLOOR, FRESH], rollout=AUTOMATIC, evidence=evidence
    )
    assert judgement.decision == "promote"
    assert "no champion yet" in judgement.reason


def test_first_version_below_the_floor_is_kept_out() -> None:
    evidence = Evidence(kind="test", rows=900, values={NEW.digest: {"accuracy": 0.5}})
    judgement = decide(candidate=NEW, champion=None, contenders=[], gates=[FLOOR], rollout=AUTOMATIC, evidence=evidence)
    assert judgement.decision == "keep"
    assert "still no champion" in judgement.reason


def test_pinned_policy_promotes_only_the_pinned_version() -> None:
    pin = "sha256:" + "a" * 64
    rollout = Rollout(promote="pinned", version=pin)
    evidence = fresh(new=0.9, old=0.1)
    other = decide(candidate=NEW, champion=OLD, contenders=[], gates=[], rollout=rollout, evidence=evidence)
    named = decide(
        candidate=Contestant(pin, "version 4"),
        champion=OLD,
        contenders=[],
        gates=[FLOOR],
        rollout=rollout,
        evidence=None,
    )
    assert (other.decision, named.decision) == ("keep", "promote")


def test_predecessors_need_a_relative_gate_to_come_back() -> None:
    evidence = fresh(new=0.5, old=0.7, past=0.9)
    judgement = decide(
        candidate=NEW, champion=OLD, contenders=[PAST], gates=[FLOOR], rollout=AUTOMATIC, evidence=evidence
    )
    assert judgement.decision == "keep"


def test_predecessor_that_only_equals_the_champion_does_not_return() -> None:
    same = GateRule(metric="accuracy", against="champion")
    evidence = fresh(new=0.5, old=0.7, past=0.7)
    judgement = decide(
        candidate=NEW, champion=OLD, contenders=[PAST], gates=[same], rollout=AUTOMATIC, evidence=evidence
    )
    assert judgement.decision == "keep"
