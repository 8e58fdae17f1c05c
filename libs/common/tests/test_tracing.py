"""Traces: contexts always, spans where they are collected, and never a parent that nobody exported."""

from __future__ import annotations

import contextvars
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common import context, tracing
from modelyard_common.app import create_app
from modelyard_common.context import new_traceparent
from modelyard_common.errors import Conflict, NotFound, Unavailable
from modelyard_common.health import Health
from modelyard_common.http import HttpClient
from modelyard_common.identity import Identity
from modelyard_common.settings import ServiceSettings
from modelyard_common.testing import free_port, running
from modelyard_common.testing.spans import Recorded, recording_spans
from modelyard_common.tracing import is_sampled, parse_traceparent, span
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode

HEX = "0123456789abcdef"
SAMPLED = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'c' * 32}-{'d' * 16}-00"


def ids(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length).filter(lambda text: set(text) != {"0"})


@given(ids(32), ids(16), st.integers(0, 255))
def test_a_header_says_trace_span_and_whether_it_is_sampled(trace: str, parent: str, flags: int) -> None:
    header = f"00-{trace}-{parent}-{flags:02x}"

    assert parse_traceparent(header) == header
    assert is_sampled(header) == bool(flags & 1)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"00-{'A' * 32}-{'b' * 16}-01",
        f"ff-{'a' * 32}-{'b' * 16}-01",
        f"00-{'a' * 31}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'b' * 16}-01-more",
        f"00-{'a' * 32}-{'b' * 16}-01\r\nx-evil: 1",
    ],
)
def test_a_wrong_header_is_none(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_new_trace_is_valid_and_not_sampled() -> None:
    assert parse_traceparent(new_traceparent()) is not None
    assert not is_sampled(new_traceparent())
    assert new_traceparent() != new_traceparent()


@pytest.fixture
def spans() -> Iterator[Recorded]:
    with recording_spans() as recorded:
        yield recorded


def in_context(parent: str | None, run: Callable[[], Any]) -> Any:
    """Run with a trace in hand."""

    def entered() -> Any:
        context.traceparent.set(parent)
        return run()

    return contextvars.copy_context().run(entered)


def trace_of(traceparent: str) -> int:
    return int(traceparent.split("-")[1], 16)


def attributes(recorded: ReadableSpan) -> dict[str, Any]:
    return dict(recorded.attributes or {})


def test_a_span_is_in_hand_until_it_ends_and_its_children_hang_below_it(spans: Recorded) -> None:
    def run() -> None:
        with span("outer"):
            with span("inner"):
                pass
            assert context.traceparent.get() != SAMPLED
        assert context.traceparent.get() == SAMPLED

    in_context(SAMPLED, run)

    outer, inner = spans.one("outer"), spans.one("inner")
    assert outer.parent is not None and inner.parent is not None
    assert (outer.parent.span_id, outer.context.trace_id) == (int("b" * 16, 16), trace_of(SAMPLED))
    assert inner.parent.span_id == outer.context.span_id


def test_a_failed_span_names_the_class_and_never_the_message(spans: Recorded) -> None:
    with pytest.raises(KeyError), span("broken"):
        raise KeyError("row-data")

    broken = spans.one("broken")
    assert (broken.status.status_code, attributes(broken)["error.type"]) == (StatusCode.ERROR, "KeyError")
    assert "row-data" not in broken.to_json()


def test_what_was_not_sampled_is_passed_on_and_not_recorded(spans: Recorded) -> None:
    def run() -> str | None:
        with span("work") as its:
            assert not its.is_recorded
            return context.traceparent.get()

    assert in_context(UNSAMPLED, run) == UNSAMPLED
    assert spans.names == []


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 1)])
def test_the_ratio_decides_about_traces_that_begin_here(ratio: float, recorded: int) -> None:
    with recording_spans(ratio) as spans:
        with span("root"):
            pass
        with span("child", parent=SAMPLED):
            pass

        assert [spans.names.count("root"), spans.names.count("child")] == [recorded, 1]


def test_a_ratio_between_samples_about_that_share() -> None:
    with recording_spans(0.25) as spans:
        for _ in range(1000):
            with span("root"):
                pass

        assert 150 < len(spans.all) < 350  # nine standard deviations and more


def test_a_batch_links_to_what_it_takes_up_and_is_sampled_as_any_of_it_was() -> None:
    with recording_spans(0.0) as spans:
        with span("batch", kind="producer", links=[SAMPLED, UNSAMPLED, SAMPLED]):
            pass
        with span("batch of nothing", links=[UNSAMPLED]):
            pass

        batch = spans.one("batch")
        assert batch.parent is None and batch.kind is SpanKind.PRODUCER
        assert [link.context.trace_id for link in batch.links] == [trace_of(SAMPLED)]
        assert spans.names == ["batch"]


def test_without_a_recorder_a_span_is_a_context_for_the_log_alone() -> None:
    with span("work") as its:
        assert context.traceparent.get() == its.traceparent
        assert not is_sampled(its.traceparent)
    assert context.traceparent.get() is None


def router() -> APIRouter:
    routes = APIRouter()

    @routes.get("/things/{name}")
    def thing(name: str) -> str | None:
        if name == "none":
            raise NotFound("there is none")
        if name == "broken":
            raise RuntimeError("row-data")
        return context.traceparent.get()

    return routes


@pytest.fixture
def app() -> FastAPI:
    return create_app(service="s", settings=ServiceSettings(), routers=[router()], health=Health())


def test_a_request_is_a_server_span_named_by_its_route(spans: Recorded, app: FastAPI) -> None:
    with running(app) as url:
        answer = httpx.get(f"{url}/things/secret-name?q=secret-query", headers={"traceparent": SAMPLED})

    served = spans.one("GET /things/{name}")
    assert served.kind is SpanKind.SERVER
    assert served.parent is not None and served.parent.span_id == int("b" * 16, 16)
    assert answer.json() == f"00-{'a' * 32}-{served.context.span_id:016x}-01"
    found = attributes(served)
    assert found["http.request.method"] == "GET"
    assert found["http.route"] == "/things/{name}"
    assert found["http.response.status_code"] == 200
    assert (found["url.scheme"], found["url.path"]) == ("http", "/things/secret-name")
    assert found["server.port"] == int(url.rpartition(":")[2])
    assert "secret-query" not in served.to_json()


@pytest.mark.parametrize(
    ("name", "status", "failed"), [("none", 404, StatusCode.UNSET), ("broken", 500, StatusCode.ERROR)]
)
def test_only_what_is_this_servers_fault_is_an_error(
    spans: Recorded, app: FastAPI, name: str, status: int, failed: StatusCode
) -> None:
    with running(app) as url:
        assert httpx.get(f"{url}/things/{name}").status_code == status

    served = spans.one("GET /things/{name}")
    assert (attributes(served)["http.response.status_code"], served.status.status_code) == (status, failed)
    assert "row-data" not in served.to_json()


def test_probes_and_scrapes_are_no_traces(spans: Recorded, app: FastAPI) -> None:
    with running(app) as url:
        for path in ("/health/live", "/metrics", "/health/ready"):
            httpx.get(url + path)

    assert spans.names == []


def test_a_call_is_a_client_span_and_the_parent_of_what_it_asks_for(spans: Recorded, app: FastAPI) -> None:
    with running(app) as url, closing(HttpClient(url, service="things")) as client, span("story") as story:
        client.request("GET", "/things/a")
        assert context.traceparent.get() == story.traceparent

    called, served = spans.one("GET"), spans.one("GET /things/{name}")
    assert (called.kind, attributes(called)["peer.service"]) == (SpanKind.CLIENT, "things")
    assert attributes(called)["url.full"] == f"{url}/things/a"
    assert served.parent is not None and served.parent.span_id == called.context.span_id


def test_each_attempt_is_a_span_that_counts_and_tells_its_failure(spans: Recorded) -> None:
    with (
        closing(HttpClient(f"http://127.0.0.1:{free_port()}", service="gone", retries=1)) as client,
        pytest.raises(Unavailable),
        span("story"),
    ):
        client.request("GET", "/")

    attempts = [attributes(one) for one in spans.all if one.name == "GET"]
    assert [one.get("http.request.resend_count") for one in attempts] == [None, 1]
    assert {one["error.type"] for one in attempts} == {"ConnectError"}


def test_a_refusal_is_a_failed_call(spans: Recorded) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(409))
    with closing(HttpClient("http://peer", service="peer", transport=transport)) as client, span("story"):
        with pytest.raises(Conflict):
            client.request("GET", "/")
        with pytest.raises(Conflict), client.stream("GET", "/"):
            pass

    assert {attributes(one)["error.type"] for one in spans.all if one.name == "GET"} == {"409"}


def test_a_call_outside_of_any_trace_begins_none(spans: Recorded) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    with closing(HttpClient("http://peer", service="peer", transport=transport)) as client:
        client.request("GET", "/")

    assert spans.names == []


def test_a_program_with_spans_of_its_own_is_gone_on_with() -> None:
    asked: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: asked.append(request) or httpx.Response(200))  # type: ignore[func-returns-value]
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("notebook")
    with closing(HttpClient("http://peer", service="peer", transport=transport)) as client:
        with tracer.start_as_current_span("analysis") as analysis:
            client.request("GET", "/")
        client.request("GET", "/")

    its = analysis.get_span_context()
    assert asked[0].headers["traceparent"].startswith(f"00-{its.trace_id:032x}-{its.span_id:016x}-")
    assert "traceparent" not in asked[1].headers


def test_credentials_in_an_address_are_not_shown(spans: Recorded) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    with (
        closing(HttpClient("http://me:hidden@peer/base/", service="peer", transport=transport)) as client,
        span("story"),
    ):
        client.request("GET", "/x", params={"token": "hidden"})

    assert attributes(spans.one("GET"))["url.full"] == "http://peer/base/x"


_HEAVY = """
import sys
from modelyard_common import app, http, process
from modelyard_common.settings import ServiceSettings

process.begin("drift", ServiceSettings)
sys.exit(any(name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")) for name in sys.modules))
"""


def test_a_process_without_an_endpoint_never_imports_the_sdk() -> None:
    assert subprocess.run([sys.executable, "-c", _HEAVY], check=False, env={}, timeout=60).returncode == 0


@pytest.mark.parametrize("parent", [None, UNSAMPLED], ids=["no header", "not sampled"])
def test_a_request_that_is_not_traced_makes_no_span(parent: str | None) -> None:
    """Also where an exporter is configured: with sampling off a request costs a string."""
    with recording_spans(0.0):

        def requests() -> None:
            for _ in range(100):
                with span("work"):
                    assert tracing.recorded() is None

        gc.collect()
        before = sum(isinstance(one, Span) for one in gc.get_objects())
        gc.disable()
        try:
            in_context(parent, requests)
            after = sum(isinstance(one, Span) for one in gc.get_objects())
        finally:
            gc.enable()

    assert after == before


def test_a_receiver_that_is_away_holds_up_neither_work_nor_the_end() -> None:
    tracing.configure_tracing(Identity("test"), endpoint=f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    for _ in range(3000):
        with span("work"):
            pass
    assert time.monotonic() - began < 5
    tracing.shutdown_tracing(timeout_s=0.5)

    assert time.monotonic() - began < 6
