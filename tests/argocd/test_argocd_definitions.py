"""Argo CD's API server would take what is applied by hand, what the root makes, and what its sets make."""

from __future__ import annotations

import copy

import pytest
from modelyard_common.testing.required import unavailable

from tests.argocd.argo import Checkout
from tests.argocd.definitions import SUMS, CannotHave, definitions, faults
from tests.chart.rendering import Document


@pytest.fixture(scope="module", params=list(SUMS))
def known(request: pytest.FixtureRequest) -> dict[str, Document]:
    try:
        return definitions(request.param)
    except CannotHave as reason:
        unavailable(str(reason))


def test_every_object_for_argo_cd_is_what_it_calls_one(known: dict[str, Document], checkout: Checkout) -> None:
    documents = [*checkout.by_hand(), *checkout.objects(), *checkout.applications()]

    found = {
        f"{one['kind']}/{one['metadata']['name']}": list(faults(known[one["kind"]], one))
        for one in documents
        if one["apiVersion"] == "argoproj.io/v1alpha1"
    }

    assert len(found) > 25
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert {one["kind"] for one in documents} == set(known)


@pytest.mark.parametrize(
    ("kind", "path", "key", "value"),
    [
        ("Application", ("spec", "syncPolicy", "automated"), "selfheal", True),
        ("Application", ("spec", "syncPolicy", "retry"), "limit", "ten"),
        ("Application", ("spec", "source", "helm"), "values_files", []),
        ("AppProject", ("spec",), "clusterResourceAllowlist", []),
        ("ApplicationSet", ("spec", "syncPolicy"), "applicationsSync", "always"),
        ("ApplicationSet", ("spec", "generators", 0, "matrix", "generators", 1, "git"), "branch", "main"),
    ],
)
def test_a_slip_in_an_object_is_seen(
    known: dict[str, Document], checkout: Checkout, kind: str, path: tuple[str | int, ...], key: str, value: object
) -> None:
    everything = [*checkout.objects(), *checkout.applications()]
    document = copy.deepcopy(next(one for one in everything if one["kind"] == kind))
    here: Document = document
    for part in path:
        here = here[part]  # type: ignore[index]
    here[key] = value

    [fault] = faults(known[kind], document)

    assert key in fault
