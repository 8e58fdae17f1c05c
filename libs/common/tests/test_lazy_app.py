"""An application whose framework comes when it is asked for: once, off the event loop, while raw routes answer on."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, Request
from modelyard_common import metrics
from modelyard_common.app import framework
from modelyard_common.edge import edge_of
from modelyard_common.health import Health
from modelyard_common.lazy_app import LazyApp, Rest
from modelyard_common.lifespan import Life
from modelyard_common.probes import probes
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute
from modelyard_common.settings import ServiceSettings
from modelyard_common.tasks import Task
from modelyard_common.testing import running
from prometheus_client import REGISTRY


class Making:
    """Makes the rest, as often as it is told to, and counts that."""

    def __init__(self) -> None:
        self.times = 0
        self.threads: set[str] = set()
        self.may = threading.Event()
        self.may.set()
        self.fails = False

    def of(self, edge: Any) -> Rest:
        self.times += 1
        self.threads.add(threading.current_thread().name)
        self.may.wait(10)
        if self.fails:
            raise ImportError("no such library")
        router = APIRouter()

        @router.get("/web")
        def web(request: Request) -> str:
            return request.app.state.word  # type: ignore[no-any-return]

        return framework("lazy", ServiceSettings(), edge, [router], {"word": "web"})


async def _raw(request: RawRequest) -> RawAnswer:
    return RawAnswer(b"raw")


@contextmanager
def served(making: Making, life: Life | None = None, answer: Any = _raw) -> Iterator[httpx.Client]:
    life = life or Life("lazy", Health())
    raw = RawRoute(lambda method, path: path == "/raw", answer, "/raw")
    edge = edge_of(ServiceSettings(), "lazy", raw_routes=[raw, *probes(life.health, metrics.render)])
    app = LazyApp(edge=edge, life=life, rest=lambda: making.of(edge), state={"mine": 1})
    assert (app.state.edge, app.state.health, app.state.mine) == (edge, life.health, 1)
    with running(app) as url, httpx.Client(base_url=url, timeout=15) as client:
        yield client


def test_probes_and_raw_routes_load_nothing() -> None:
    making = Making()
    with served(making) as client:
        assert client.get("/raw").text == "raw"
        assert client.get("/health/live").json() == {"status": "live"}
        assert client.get("/health/startup").json() == {"status": "started"}
        assert client.get("/health/ready").json() == {"status": "ready", "checks": {}}
        assert client.get("/health").status_code == 200
        scraped = client.get("/metrics")

    assert making.times == 0
    assert scraped.headers["content-type"].startswith("text/plain")
    counted = 'modelyard_http_requests_total{method="GET",route="/health/live",service="lazy",status="200"} 1.0'
    assert counted in scraped.text


def test_the_rest_is_made_once_however_many_ask_and_raw_routes_answer_meanwhile() -> None:
    making = Making()
    making.may.clear()
    with served(making) as client, ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(client.get, "/web") for _ in range(5)]
        assert client.get("/raw").text == "raw"
        assert not any(one.done() for one in asked)
        making.may.set()

        assert [one.result().json() for one in asked] == ["web"] * 5
        assert client.get("/nothing").json()["title"] == "Not Found"

    assert making.times == 1
    assert not any(name.endswith("(run)") for name in making.threads), "on the server's own thread"


def test_who_hangs_up_while_it_loads_has_it_made_no_second_time() -> None:
    making = Making()
    making.may.clear()
    with served(making) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get("/web", timeout=0.2)
        making.may.set()
        assert client.get("/web").json() == "web"

    assert making.times == 1


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/startup", "/health/ready", "/metrics"])
def test_probes_take_a_slash_and_nothing_but_get(path: str) -> None:
    making = Making()
    with served(making) as client:
        assert client.get(f"{path}/").status_code == 200
        for method in ("HEAD", "POST", "OPTIONS"):
            refused = client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET")

    assert making.times == 0


def test_probes_wait_for_no_thread_of_others() -> None:
    end = threading.Event()

    async def busy(request: RawRequest) -> RawAnswer:
        waiting = [asyncio.ensure_future(asyncio.to_thread(end.wait, 20)) for _ in range(100)]
        await asyncio.wait(waiting, timeout=0.1)
        return RawAnswer(b"busy")

    seen: list[str] = []
    life = Life("lazy", Health(), on_close=[lambda: seen.append("closed")])
    with served(Making(), life, busy) as client:
        assert client.get("/raw").text == "busy"
        for path in ("/health/live", "/health/startup", "/health/ready", "/metrics", "/web"):
            assert client.get(path, timeout=5).status_code == 200
        end.set()

    assert seen == ["closed"]


def test_a_rest_that_cannot_be_made_fails_its_request_and_is_tried_again() -> None:
    making = Making()
    making.fails = True
    with served(making) as client:
        failed = client.get("/web")
        assert (failed.status_code, failed.json()["status"], failed.headers["retry-after"]) == (503, 503, "1")
        assert "no such library" not in failed.text
        assert client.get("/raw").text == "raw"
        making.fails = False

        assert client.get("/web").json() == "web"


def test_tasks_begin_and_closers_run_in_order() -> None:
    seen: list[str] = []

    def broken() -> None:
        seen.append("broken")
        raise OSError

    task = Task("t", lambda stop: seen.append("task") or stop.wait(10))  # type: ignore[func-returns-value]
    with served(Making(), Life("lazy", Health(), [task], [broken, lambda: seen.append("last")])) as client:
        assert client.get("/health/ready").status_code == 200

    assert seen == ["task", "broken", "last"]


def test_tasks_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard_common.lifespan._JOIN_S", 1.0)
    closed, end = threading.Event(), threading.Event()

    def hang(stop: object) -> None:
        end.wait(30)

    tasks = [Task(f"t{number}", hang) for number in range(5)]
    with served(Making(), Life("lazy", Health(), tasks, [closed.set])) as client:
        assert client.get("/health/ready").status_code == 200
        began = time.monotonic()
    took_s = time.monotonic() - began
    end.set()

    assert closed.is_set()
    assert took_s < 4


@pytest.mark.parametrize("fails", ["start", "stop"])
def test_a_life_that_fails_is_told_to_the_server(fails: str) -> None:
    class Broken:
        async def start(self) -> None:
            if fails == "start":
                raise RuntimeError("no port")

        async def stop(self) -> None:
            if fails == "stop":
                raise RuntimeError("no end")

    health = Health()
    life = Life("lazy", health, companions=[Broken()])
    app = LazyApp(edge=edge_of(ServiceSettings(), "lazy", raw_routes=[]), life=life, rest=lambda: Making().of(None))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    _stopping_soon(server)
    if fails == "start":
        with pytest.raises(SystemExit):
            server.run()
    else:
        server.run()

    assert server.lifespan.should_exit  # type: ignore[attr-defined]  # made by run
    assert health.is_started == (fails == "stop")


def _stopping_soon(server: uvicorn.Server) -> None:
    shipped: Callable[..., Any] = server.startup

    async def startup(*args: Any, **named: Any) -> None:
        await shipped(*args, **named)
        server.should_exit = True

    server.startup = startup  # type: ignore[method-assign]


@pytest.mark.parametrize("first", [True, False])
def test_a_request_is_counted_before_its_answer_where_counts_outlive_the_process(*, first: bool) -> None:
    def soon(request: RawRequest, done: Callable[[RawAnswer], None]) -> bool:
        done(RawAnswer(b"raw"))
        return True

    def counted() -> float:
        labels = {"service": service, "method": "GET", "route": "/raw", "status": "200"}
        return REGISTRY.get_sample_value("modelyard_http_requests_total", labels) or 0.0

    service = f"counting-{first}"
    route = RawRoute(lambda method, path: True, _raw, "/raw", soon)
    edge = edge_of(ServiceSettings(), service, raw_routes=[route], counts_first=first)
    head = edge.head_of({"type": "http", "method": "GET", "path": "/raw", "headers": []})
    assert head is not None
    seen: list[float] = []

    # In a context of its own, as each request is.
    here = contextvars.Context()
    assert here.run(edge.answer_soon, head, b"", lambda answer, request_id: seen.append(counted()))

    assert seen == [1 if first else 0]
    assert counted() == 1
