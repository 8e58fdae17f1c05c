from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.managed_model_v1alpha1 import AbortRule, RolloutStep
from modelyard_registry.domain import rollout as machine
from modelyard_registry.domain.rollout import Decision, Rollout, decide
from modelyard_registry.domain.signals import Comparison, Side

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHADOW = RolloutStep(shadow=True, min_requests=200)
QUARTER = RolloutStep(weight=25, min_requests=100, for_="10m")
FULL = RolloutStep(weight=100, min_requests=10)
ERRORS = AbortRule(signal="errorRatio", above=0.01)
SLOW = AbortRule(signal="p99", ratio=1.5, floor_ms=5)


def rolling(*steps: RolloutStep, kind: machine.Kind = "new", rules: tuple[AbortRule, ...] = ()) -> Rollout:
    planned = machine.plan(steps, kind=kind, direct=False)
    rollout = Rollout("r", "m", "new", "old", kind, NOW, steps=planned, abort_if=rules)
    return machine.enter(rollout, 5, NOW)


def compared(
    responses: int = 1000,
    errors: int = 0,
    p99: float | None = 3.0,
    champion_p99: float | None = 3.0,
    champion_responses: int = 1000,
    disagreement: float | None = None,
    pairs: int = 0,
    revision: int = 5,
) -> Comparison:
    return Comparison(
        revision=revision,
        champion=Side("old", champion_responses, 0, 1.0, champion_p99),
        candidate=Side("new", responses, errors, 1.0, p99),
        disagreement=disagreement,
        pairs=pairs,
    )


LATER = NOW + timedelta(minutes=11)


@pytest.mark.parametrize(
    ("rollout", "comparison", "now", "action", "words"),
    [
        pytest.param(rolling(SHADOW), compared(199), NOW, "wait", "199 of 200 responses", id="too few requests"),
        pytest.param(rolling(SHADOW), compared(200), NOW, "complete", "200 responses", id="last step passed"),
        pytest.param(rolling(SHADOW, QUARTER), compared(200), NOW, "advance", "in shadow", id="shadow passed"),
        pytest.param(rolling(QUARTER), compared(100), NOW, "wait", "600 s more of 600 s", id="not long enough"),
        pytest.param(rolling(QUARTER), compared(100), LATER, "complete", "at 25 %", id="long enough"),
        pytest.param(rolling(SHADOW), None, NOW, "wait", "drift is away", id="no evidence"),
        pytest.param(rolling(SHADOW), compared(revision=4), LATER, "wait", "revision 5", id="evidence of another step"),
        pytest.param(
            rolling(SHADOW, rules=(ERRORS,)), compared(60, 1), NOW, "abort", "above 0.01", id="errors abort early"
        ),
        pytest.param(
            rolling(SHADOW, rules=(ERRORS,)), compared(49, 40), NOW, "wait", "49 of 50", id="few prove nothing"
        ),
        pytest.param(
            rolling(SHADOW, rules=(ERRORS,)), compared(0, 50), NOW, "abort", "above", id="nothing but errors is counted"
        ),
        pytest.param(
            rolling(SHADOW, rules=(SLOW,)), compared(p99=9.0), NOW, "abort", "1.5 times", id="much slower than champion"
        ),
        pytest.param(rolling(SHADOW, rules=(SLOW,)), compared(p99=4.9), NOW, "complete", "", id="under the floor"),
        pytest.param(
            rolling(QUARTER, rules=(SLOW,)), compared(p99=9.0, champion_responses=9), LATER, "wait", "of the champion",
            id="the champion has too few",
        ),
        pytest.param(
            rolling(FULL, rules=(SLOW,)), compared(p99=9.0, champion_responses=0), NOW, "complete", "",
            id="at full weight nobody is left to compare with",
        ),
        pytest.param(
            rolling(FULL, rules=(AbortRule(signal="disagreement", above=0.2),)), compared(), NOW, "complete", "",
            id="disagreement rests without copies",
        ),
        pytest.param(
            rolling(SHADOW, rules=(AbortRule(signal="disagreement", above=0.2),)),
            compared(disagreement=0.5, pairs=300), NOW, "abort", "disagreement", id="disagreement aborts when asked to",
        ),
        pytest.param(rolling(SHADOW), compared(disagreement=0.9, pairs=300), NOW, "complete", "", id="shown"),
        pytest.param(
            rolling(SHADOW, rules=(AbortRule(signal="performance", below=0.6),)), compared(), NOW, "wait",
            "performance: 0 of 50", id="labels have not come",
        ),
    ],
)  # fmt: skip
def test_machine_decides_as_the_table_says(
    rollout: Rollout, comparison: Comparison | None, now: datetime, action: str, words: str
) -> None:
    decision = decide(rollout, comparison, now, absent="drift is away")
    assert decision.action == action, decision.reason
    assert words in decision.reason


def test_paused_rollout_waits_whatever_the_evidence_says() -> None:
    paused = machine.pause(rolling(SHADOW, rules=(ERRORS,)))
    assert decide(paused, compared(500, 400), NOW).action == "wait"
    assert decide(machine.resume(paused), compared(500, 400), NOW).action == "abort"


def test_returning_predecessor_skips_shadow() -> None:
    rollout = rolling(SHADOW, FULL, kind="predecessor")
    assert [step.outcome for step in rollout.steps] == ["skipped", "running"]


def test_final_states_are_left_by_nothing() -> None:
    aborted = machine.abort(rolling(SHADOW), Decision("abort", "no"), NOW)
    for leave in (machine.pause, machine.resume):
        with pytest.raises(ValueError, match="aborted already"):
            leave(aborted)
    with pytest.raises(ValueError, match="aborted already"):
        machine.complete(aborted, Decision("complete", "yes"), NOW)


steps_strategy = st.lists(
    st.one_of(
        st.just(SHADOW),
        st.integers(1, 100).map(lambda weight: RolloutStep(weight=weight, min_requests=10)),
    ),
    min_size=1,
    max_size=5,
)
ticks = st.lists(
    st.tuples(st.sampled_from(["none", "few", "good", "bad"]), st.integers(0, 900), st.booleans()), max_size=30
)


@given(steps=steps_strategy, kind=st.sampled_from(["new", "predecessor", "manual"]), told=ticks)
def test_whatever_happens_no_step_is_skipped_and_the_aborted_never_complete(
    steps: list[RolloutStep], kind: machine.Kind, told: list[tuple[str, int, bool]]
) -> None:
    planned = machine.plan(steps, kind=kind, direct=False)
    rollout = Rollout("r", "m", "new", "old", kind, NOW, steps=planned, abort_if=(ERRORS,))
    if rollout.upcoming is None:
        assert kind == "predecessor"
        return
    revision, now = 1, NOW
    rollout = machine.enter(rollout, revision, now)
    for what, seconds, pause in told:
        now += timedelta(seconds=seconds)
        if rollout.active and pause:
            rollout = machine.pause(rollout) if rollout.state == "running" else machine.resume(rollout)
        evidence = {"none": None, "few": compared(5), "good": compared(), "bad": compared(errors=900)}[what]
        at = evidence and Comparison(revision, evidence.champion, evidence.candidate)
        decision = decide(rollout, at, now)
        before = [step.outcome for step in rollout.steps]
        if decision.action == "advance":
            revision += 1
            rollout = machine.advance(rollout, decision, revision, now)
        elif decision.action == "complete":
            rollout = machine.complete(rollout, decision, now)
        elif decision.action == "abort":
            rollout = machine.abort(rollout, decision, now)
        after = [step.outcome for step in rollout.steps]
        assert sum(old != new for old, new in zip(before, after, strict=True)) <= 2
        assert after.count("running") == (1 if rollout.active else 0)
        is_open = [outcome in ("pending", "running") for outcome in after]
        first_open = is_open.index(True) if any(is_open) else len(after)
        assert (
            all(outcome in ("pending", "skipped") for outcome in after[first_open + 1 :]) or rollout.state == "aborted"
        )
        if rollout.state == "completed":
            assert set(after) <= {"passed", "skipped"}
        if not rollout.active:
            assert decide(rollout, compared(revision=revision), now).action == "wait"
    revisions = [step.revision for step in rollout.steps if step.revision is not None]
    assert revisions == sorted(set(revisions)), "each step has a routing revision of its own"
