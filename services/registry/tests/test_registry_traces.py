"""The trace of a registration goes on in what follows from it: each step of its rollout, and each routing revision."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import httpx
from modelyard_common.testing import running
from modelyard_common.testing.spans import recording_spans, traceparent_of
from modelyard_common.tracing import parse_traceparent, within
from modelyard_registry.adapters.mlflow import MlflowRest, client
from registry_fakes import Platform, evaluation, make_bundle, role

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
STEPS = {"rollout": {"steps": [{"shadow": True, "minRequests": 5}, {"weight": 50, "minRequests": 5}]}}


def register_in_trace(platform: Platform, header: str) -> None:
    """Register a version that beats the champion, in a trace of the caller's."""
    champion = platform.champion()
    bundle = make_bundle(weight="w2")
    judged = evaluation(**{role("candidate", bundle): 0.8, role("champion", champion): 0.7})
    body = {"digest": bundle.digest, "mlflow_run_id": platform.mlflow.add_run(bundle), "run": "r", "evaluation": judged}
    headers = {"traceparent": header}
    assert platform.http.post("/v1/models/m/versions", json=body, headers=headers).status_code == httpx.codes.CREATED


def test_every_revision_of_a_rollout_is_in_the_trace_that_registered_the_version(platform: Platform) -> None:
    platform.apply(**STEPS)
    with recording_spans(0.0) as spans:
        register_in_trace(platform, PARENT)
        revisions = [platform.routing()]
        while platform.model()["rollout"]["state"] == "running":
            platform.evidence.good(platform.routing()["revision"])
            assert platform.advance() == 1
            revisions.append(platform.routing())

        registered, verified = spans.one("POST /v1/models/{name}/versions"), spans.one("verify bundle")
        advanced = [span for span in spans.all if span.name == "advance rollout"]

    assert [dict(span.attributes or {})["modelyard.decision"] for span in advanced] == ["advance", "complete"]
    below = {span.parent.span_id for span in (verified, *advanced) if span.parent is not None}
    assert below == {registered.context.span_id}
    assert [one["traceparent"] for one in revisions] == [traceparent_of(span) for span in (registered, *advanced)]


def test_a_rollout_that_waits_leaves_no_spans(platform: Platform) -> None:
    platform.apply(**STEPS)
    with recording_spans(0.0) as spans:
        register_in_trace(platform, PARENT)
        for _ in range(5):
            platform.advance()

        assert "advance rollout" not in spans.names


def test_a_revision_knows_its_trace_also_where_nothing_is_recorded(platform: Platform) -> None:
    platform.apply()
    register_in_trace(platform, PARENT)

    assert platform.routing()["traceparent"] == PARENT
    platform.apply(serve={"logPayloads": 0.5})
    assert parse_traceparent(platform.routing()["traceparent"]) not in (None, PARENT)


def test_mlflow_is_asked_in_the_trace_of_the_request() -> None:
    asked: list[str] = []

    async def mlflow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        del receive
        if scope["type"] == "http":
            asked.append(dict(scope["headers"]).get(b"traceparent", b"").decode())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"OK"})

    with running(mlflow) as url, closing(client(url)) as http:
        MlflowRest(http).ping()
        with within(PARENT):
            MlflowRest(http).ping()

    assert asked == ["", PARENT]
