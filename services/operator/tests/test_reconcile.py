"""What is done about a model: by tables for what people do, and by laws for everything that can be seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_operator.domain.observed import FINALIZER, Away, Loaded, Observed, Seen
from modelyard_operator.domain.reconcile import Action, Apply, Delete, SetFinalizers, WriteStatus, reconcile
from operator_yard import DIGEST, NOW, document, drift, managed, model, observed, performed, rollout, run, version

AWAY = Away("registry cannot be asked: refused")
OTHER = {"paused": True}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(observed(object=managed(finalizers=()), registry=Seen(None)), [SetFinalizers], id="a new object"),
        pytest.param(observed(registry=Seen(None)), [Apply], id="the registry does not know it"),
        pytest.param(observed(registry=Seen(model(OTHER))), [Apply], id="the policy changed"),
        pytest.param(observed(registry=AWAY), [WriteStatus], id="the registry is away"),
        pytest.param(observed(registry=Seen(None), refused="no"), [WriteStatus], id="refused and not yet tried again"),
        pytest.param(
            observed(object=managed(manifest=None, fault="spec.task: wrong"), registry=Seen(None)),
            [WriteStatus],
            id="no policy at all",
        ),
        pytest.param(observed(object=managed(deleting=True)), [Delete], id="deleted"),
        pytest.param(
            observed(object=managed(deleting=True), registry=Seen(model({"deletionPolicy": "delete"}))),
            [Apply, Delete],
            id="deleted right after its policy changed",
        ),
        pytest.param(
            observed(object=managed(deleting=True, manifest=None, fault="wrong")), [Delete], id="deleted while wrong"
        ),
        pytest.param(observed(object=managed(deleting=True), registry=Seen(None)), [SetFinalizers], id="gone there"),
        pytest.param(
            observed(object=managed(deleting=True), registry=AWAY), [WriteStatus], id="deleted while nobody answers"
        ),
        pytest.param(
            observed(object=managed(deleting=True, finalizers=("other/one",))), [], id="kept by somebody else"
        ),
    ],
)
def test_what_is_done(seen: Observed, expected: list[type[Action]]) -> None:
    assert [type(action) for action in reconcile(seen, NOW)] == expected


def test_finalizers_of_others_are_left_alone() -> None:
    added = reconcile(observed(object=managed(finalizers=("other/one",))), NOW)
    gone = observed(object=managed(deleting=True, finalizers=("other/one", FINALIZER)), registry=Seen(None))
    assert added == (SetFinalizers(("other/one", FINALIZER)),)
    assert reconcile(gone, NOW) == (SetFinalizers(("other/one",)),)


def test_what_the_registry_gets_is_the_policy_and_nothing_of_the_cluster() -> None:
    (action,) = reconcile(observed(registry=Seen(None)), NOW)
    assert isinstance(action, Apply)
    assert action.manifest.to_wire()["metadata"] == {"name": "m"}


states = st.sampled_from(["pending", "starting", "running", "succeeded", "failed", "cancelled", "timed_out"])
words = st.sampled_from(["", "no rows", "the image x cannot be pulled", "y" * 3000])
decisions = st.sampled_from(["promote", "keep", "insufficient", "hold"])


@st.composite
def views(draw: Any) -> Any:
    fields: dict[str, Any] = {}
    if draw(st.booleans()):
        fields["champion"] = version(draw(st.integers(1, 3)))
    if draw(st.booleans()):
        fields["candidate"] = version(4, "candidate")
        fields["rollout"] = rollout(draw(st.sampled_from(["running", "paused", "completed", "aborted"])))
    if draw(st.booleans()):
        fields["last_verdict"] = {"decision": draw(decisions), "reason": draw(words)}
    return model(draw(st.sampled_from([None, OTHER])), **fields)


def maybe(strategy: Any) -> Any:
    return st.one_of(st.builds(Away, words.filter(bool)), st.just(Seen(None)), st.builds(Seen, strategy))


objects = st.builds(
    managed,
    generation=st.integers(1, 5),
    manifest=st.sampled_from([parse_manifest(document()), parse_manifest(document(**OTHER))]),
    finalizers=st.sampled_from([(), (FINALIZER,), ("other/one",), ("other/one", FINALIZER)]),
    deleting=st.booleans(),
) | st.builds(
    lambda **values: managed(manifest=None, fault="spec.task: wrong", **values),
    deleting=st.booleans(),
    finalizers=st.sampled_from([(), (FINALIZER,)]),
)
drifts = st.builds(
    lambda severity, features, pending: drift(severity, tuple(features), pending_commands=pending),
    st.sampled_from(["none", "low", "high", "critical", "unknown"]),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=20),
    st.integers(0, 1),
)
everything = st.builds(
    Observed,
    object=objects,
    registry=maybe(views()),
    run=maybe(st.builds(lambda state, reason: run(state, reason=reason, version=DIGEST), states, words)),
    drift=maybe(drifts),
    loaded=maybe(st.builds(Loaded, st.frozensets(st.integers(1, 3)), words)),
    refused=words,
)


def settled(seen: Observed) -> Observed | None:
    """Carry out what is to be done until nothing is; return what is seen then."""
    for _ in range(5):
        actions = reconcile(seen, NOW)
        if not actions:
            return seen
        for action in actions:
            after = performed(seen, action)
            if after is None:
                return None
            seen = after
    raise AssertionError("it never rests")


@given(everything)
def test_when_all_is_done_there_is_nothing_to_do_now_or_later(seen: Observed) -> None:
    rested = settled(seen)
    if rested is not None:
        assert reconcile(rested, NOW + timedelta(days=3)) == ()


@given(everything)
def test_two_operators_that_see_the_same_do_the_same(seen: Observed) -> None:
    assert reconcile(seen, NOW) == reconcile(seen, NOW)


@given(everything)
def test_nothing_is_ever_done_to_a_spec(seen: Observed) -> None:
    for action in reconcile(seen, NOW):
        assert isinstance(action, SetFinalizers | Apply | Delete | WriteStatus)
        if isinstance(action, Apply):
            assert action.manifest == seen.object.manifest
        if isinstance(action, SetFinalizers):
            assert set(action.finalizers) ^ set(seen.object.finalizers) == {FINALIZER}


@given(everything)
def test_an_object_is_let_go_only_when_the_registry_has_no_model(seen: Observed) -> None:
    for action in reconcile(seen, NOW):
        if isinstance(action, SetFinalizers) and FINALIZER not in action.finalizers:
            assert seen.object.deleting
            assert seen.registry == Seen(None)
        if isinstance(action, Delete):
            assert seen.object.deleting


@given(everything, st.integers(0, 9))
def test_the_observed_generation_is_only_of_a_policy_that_was_decided(seen: Observed, before: int) -> None:
    status = seen.object.status.model_copy(update={"observed_generation": before})
    seen = replace(seen, object=replace(seen.object, status=status))
    for action in reconcile(seen, NOW):
        if isinstance(action, WriteStatus):
            decided = seen.applied or seen.fault
            assert action.status.observed_generation == (seen.object.generation if decided else before)


@given(everything)
def test_every_condition_has_a_reason_and_a_sentence_within_its_bounds(seen: Observed) -> None:
    for action in reconcile(seen, NOW):
        if isinstance(action, WriteStatus):
            assert len(action.status.conditions) == 7
            assert all(found.reason.isalnum() and found.message for found in action.status.conditions)
            assert len(action.status.model_dump_json()) < 10_000
