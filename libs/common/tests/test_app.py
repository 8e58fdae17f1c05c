"""The application: ids, problems, auth, bounds, health, and the promise that a failed commit is never a 200."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from modelyard_common.app import create_app
from modelyard_common.auth.guards import allow
from modelyard_common.auth.tokens import hash_token
from modelyard_common.db import Database, ReadSession, WriteSession, reading, writing
from modelyard_common.errors import Conflict, Overloaded
from modelyard_common.health import Health
from modelyard_common.raw import RawAnswer, RawRequest, RawRoute
from modelyard_common.serving import bound
from modelyard_common.settings import ServiceSettings
from modelyard_common.testing import free_port, running
from pydantic import BaseModel, ValidationError
from sqlalchemy import text


class Thing(BaseModel):
    name: str
    size: int


def thing_router() -> APIRouter:
    router = APIRouter()

    @router.post("/things", status_code=201)
    def create(thing: Thing, session: Annotated[WriteSession, Depends(writing, scope="function")]) -> Thing:
        session.execute(text("INSERT INTO things VALUES (:n)"), {"n": thing.name})
        return thing

    @router.get("/things")
    def count(session: Annotated[ReadSession, Depends(reading, scope="function")]) -> int:
        return session.execute(text("SELECT count(*) FROM things")).scalar_one()

    @router.get("/conflict")
    def conflict() -> None:
        raise Conflict("it is taken")

    @router.get("/busy")
    def busy() -> None:
        raise Overloaded(retry_after_s=7)

    @router.get("/bug")
    def bug() -> None:
        raise RuntimeError("secret-row-data")

    @router.post("/admin", dependencies=[Depends(allow("admin"))])
    def admin() -> str:
        return "done"

    return router


def make_app(database: Database, settings: ServiceSettings | None = None, **extra: Any) -> FastAPI:
    return create_app(
        service="test",
        settings=settings or ServiceSettings(),
        routers=[thing_router()],
        health=extra.pop("health", Health()),
        state={"database": database},
        **extra,
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/t.db")
    with database.write() as session:
        session.execute(text("CREATE TABLE things (name TEXT UNIQUE)"))
    yield database
    database.close()


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    with running(make_app(database)) as url, httpx.Client(base_url=url) as client:
        yield client


def test_a_request_is_committed_before_its_answer(client: httpx.Client) -> None:
    assert client.post("/things", json={"name": "a", "size": 1}).status_code == 201
    assert client.get("/things").json() == 1


def test_a_commit_that_fails_is_not_answered_with_success(database: Database) -> None:
    class Failing(Database):
        pass

    def fail(self: WriteSession) -> None:
        raise RuntimeError("disk gone")

    broken = Failing(str(database.url))
    broken._writers.class_.commit = fail  # type: ignore[method-assign]
    try:
        with running(make_app(broken)) as url:
            answer = httpx.post(f"{url}/things", json={"name": "a", "size": 1})
    finally:
        del broken._writers.class_.commit
        broken.close()

    assert answer.status_code == 500


def test_a_wrong_field_is_named_and_its_value_is_not_repeated(client: httpx.Client) -> None:
    answer = client.post("/things", json={"name": "a", "size": "secret-value"})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["path"] == "size"
    assert "secret-value" not in answer.text


def test_a_body_that_is_not_json_is_400(client: httpx.Client) -> None:
    answer = client.post("/things", content=b"{", headers={"content-type": "application/json"})

    assert answer.status_code == 400
    assert "not JSON" in answer.json()["detail"]


def test_an_unknown_path_is_a_problem_document(client: httpx.Client) -> None:
    answer = client.get("/nothing")

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_errors_of_the_tree_have_their_status(client: httpx.Client) -> None:
    assert client.get("/conflict").status_code == 409
    busy = client.get("/busy")
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")


def test_a_bug_shows_neither_traceback_nor_data(client: httpx.Client) -> None:
    answer = client.get("/bug", headers={"x-request-id": "abc"})

    assert answer.status_code == 500
    assert "secret-row-data" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] == "abc"


def test_a_request_id_is_echoed_when_it_is_one_and_made_when_not(client: httpx.Client) -> None:
    assert client.get("/things", headers={"x-request-id": "r-1"}).headers["x-request-id"] == "r-1"
    assert client.get("/things", headers={"x-request-id": "no spaces!"}).headers["x-request-id"] != "no spaces!"


def test_a_body_over_the_bound_is_413(database: Database) -> None:
    with running(make_app(database, ServiceSettings(max_body_bytes=1024))) as url:
        whole = httpx.post(f"{url}/things", content=b"x" * 2000)
        chunked = httpx.post(
            f"{url}/things", content=iter([b"x" * 600] * 3), headers={"content-type": "application/json"}
        )

    assert (whole.status_code, chunked.status_code) == (413, 413)


def test_metrics_count_routes_by_template(client: httpx.Client) -> None:
    client.get("/things")

    assert (
        'modelyard_http_requests_total{method="GET",route="/things",service="test",status="200"}'
        in client.get("/metrics").text
    )


def test_readiness_follows_critical_checks_only(database: Database) -> None:
    health = Health()
    health.add("peer", lambda: "is away", critical=False)
    with running(make_app(database, health=health)) as url:
        ready = httpx.get(f"{url}/health/ready")
        health.add("store", lambda: "is broken", critical=True)
        unready = httpx.get(f"{url}/health/ready")

    assert (ready.status_code, "retry-after" in ready.headers) == (200, False)
    assert ready.json()["checks"] == {"peer": "is away"}
    assert (unready.status_code, unready.headers["retry-after"]) == (503, "1")
    assert unready.json()["checks"]["store"] == "is broken"


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> Iterator[str]:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ann admin {hash_token('t-admin')}\napp client {hash_token('t-client')}\n")
    with running(make_app(database, ServiceSettings(auth="token", tokens_file=tokens))) as url:
        yield url


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (None, "/things", 401),
        ("wrong", "/things", 401),
        ("t-client", "/things", 200),
        (None, "/health/ready", 200),
        (None, "/metrics", 200),
        (None, "/openapi.json", 401),
        (None, "/nothing", 401),
    ],
)
def test_nobody_passes_without_a_known_token(guarded: str, token: str | None, path: str, status: int) -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}

    assert httpx.get(guarded + path, headers=headers).status_code == status


def test_a_role_that_may_not_is_denied(guarded: str) -> None:
    def post(token: str) -> int:
        return httpx.post(f"{guarded}/admin", headers={"authorization": f"Bearer {token}"}).status_code

    assert (post("t-client"), post("t-admin")) == (403, 200)


def test_listening_beyond_loopback_without_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="beyond loopback"):
        ServiceSettings(host="0.0.0.0")


@pytest.fixture
def raw(database: Database) -> Iterator[str]:
    async def answer(request: RawRequest) -> RawAnswer:
        if request.body == b"bug":
            raise ZeroDivisionError("secret")
        if request.body == b"busy":
            raise Overloaded(retry_after_s=7)
        return RawAnswer(request.body or b"raw", b"text/plain", 200, b"x-more: 1\r\n")

    route = RawRoute(lambda method, path: path == "/raw", answer, "/raw")
    with running(make_app(database, ServiceSettings(max_body_bytes=1_000_000), raw_routes=[route])) as url:
        yield f"{url}/raw"


def test_raw_routes_answer_inside_the_edge(raw: str) -> None:
    answer = httpx.get(raw, headers={"x-request-id": "r-1"})

    assert (answer.text, answer.headers["content-type"], answer.headers["x-more"]) == ("raw", "text/plain", "1")
    assert answer.headers["x-request-id"] == "r-1"


def test_raw_routes_read_a_body_that_comes_in_parts(raw: str) -> None:
    assert httpx.post(raw, content=iter([b"a" * 5, b"b" * 7])).text == "aaaaabbbbbbb"


def test_errors_of_raw_routes_are_problems_without_their_messages(raw: str) -> None:
    answer = httpx.post(raw, content=b"bug")

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text


def test_a_raw_route_that_is_busy_says_when_to_come_again(raw: str) -> None:
    answer = httpx.post(raw, content=b"busy")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("said", [True, False], ids=["length given", "chunked"])
def test_raw_routes_take_no_body_past_the_bound(raw: str, said: bool) -> None:
    body = b"x" * 2_000_000

    answer = httpx.post(raw, content=body if said else iter([body]))

    assert answer.status_code == 413


SERVER = """
    import os
    import time
    from fastapi import APIRouter
    from modelyard_common.app import create_app
    from modelyard_common.serving import serve
    from modelyard_common.health import Health
    from modelyard_common.settings import ServiceSettings

    router = APIRouter()

    @router.get("/slow")
    def slow() -> str:
        time.sleep(5.0)
        return "finished"

    @router.get("/child")
    def child() -> int:
        return os.posix_spawn("/bin/sleep", ["sleep", "60"], {{}})

    settings = ServiceSettings(port={port}, drain_s=4)
    closed = lambda: print("closed", flush=True)
    serve(create_app(service="s", settings=settings, routers=[router], health=Health(), on_close=[closed]), settings)
"""


def test_sigterm_drains_unready_still_serving_finishing_exit_zero() -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER.format(port=port))], stdout=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    slow: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: slow.append(httpx.get(f"{url}/slow", timeout=30)))
    caller.start()
    time.sleep(0.1)

    pool = httpx.Client(base_url=url)
    before = pool.get("/health/live")

    os.kill(process.pid, signal.SIGTERM)

    wait_for(lambda: pool.get("/health/ready").status_code == 503)
    draining = pool.get("/health/live")
    pool.close()
    assert "connection" not in before.headers
    assert (draining.status_code, draining.headers["connection"]) == (200, "close")
    caller.join(30)
    assert process.wait(30) == 0
    assert slow[0].text == '"finished"'
    assert process.stdout is not None
    assert process.stdout.read() == "closed\n"
    process.stdout.close()


def test_a_service_killed_while_its_job_runs_gets_its_port_back() -> None:
    port = free_port()
    source = textwrap.dedent(SERVER.format(port=port))
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        job = int(httpx.get(f"{url}/child").text)
        process.kill()
    try:
        with socket.socket() as next_one:
            next_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            next_one.bind(("127.0.0.1", port))
    finally:
        os.kill(job, signal.SIGKILL)


def wait_for(condition: Any, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError("it did not come to pass")
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/healthy", "/metrics-of-others", "/pingpong", "/health-records", "/v2/healthcare"])
def test_only_the_probes_themselves_are_open(guarded: str, path: str) -> None:
    assert httpx.get(guarded + path).status_code == 401
    assert httpx.get(f"{guarded}/health/live").status_code == 200


def test_nobody_opens_a_websocket(database: Database) -> None:
    app = make_app(database)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    asyncio.run(app({"type": "websocket", "path": "/things", "headers": []}, receive, send))

    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_database_that_is_away_is_503(tmp_path: Path) -> None:
    away = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with running(make_app(away)) as url:
        answers = [httpx.get(f"{url}/things"), httpx.post(f"{url}/things", json={"name": "a", "size": 1})]
    away.close()

    assert [answer.status_code for answer in answers] == [503, 503]
    assert all(answer.headers["retry-after"] for answer in answers)


def test_answers_do_not_wait_for_a_full_packet_on_the_loop_of_asyncio() -> None:
    waits: list[int] = []

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waits.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def call() -> None:
        listener = bound("127.0.0.1", 0)
        async with await asyncio.start_server(accepted, sock=listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await reader.read()
            writer.close()

    asyncio.run(call())

    assert waits == [1]
