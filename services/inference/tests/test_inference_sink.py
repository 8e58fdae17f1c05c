"""CloudEvents to a sink, read by the CloudEvents SDK: each answer at least once, whatever the sink does; drift too."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from cloudevents.http import CloudEvent, from_http
from inference_fakes import Platform, a_server, eventually
from inference_process import InferenceProcess
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import Unavailable
from modelyard_contracts.frames import framed
from modelyard_inference.adapters import metrics
from modelyard_inference.adapters.cloud_events import REQUEST, RESPONSE, Place
from modelyard_inference.adapters.cloud_events import CloudEvent as SentEvent
from modelyard_inference.adapters.dead_letters import DeadLetters
from modelyard_inference.adapters.former_spools import FormerSpools
from modelyard_inference.adapters.payload_spool import DRIFT, SINK, PayloadSpool
from modelyard_inference.adapters.sink_sender import Fate, HttpSink, SinkSender
from modelyard_inference.adapters.spool_blocks import pack
from modelyard_inference.settings import InferenceSettings
from pydantic import ValidationError
from test_inference_spool import a_record

INFER = "/v2/models/power/infer"


def body(rows: int = 1, day: str = "mon", **parameters: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "load", "shape": [rows], "datatype": "FP64", "data": [0.7] * rows},
            {"name": "day", "shape": [rows], "datatype": "BYTES", "data": [day] * rows},
        ],
        "parameters": parameters,
    }


class SinkServer:
    """A sink that answers as it is told to."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.heads: list[dict[str, str]] = []
        self.status: Callable[[dict[str, str]], int] = lambda headers: 202
        self.delay_s = 0.0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if owner.delay_s:
                    time.sleep(owner.delay_s)
                status = owner.status(headers)
                if status < 300:
                    with owner._lock:
                        owner.heads.append(headers)
                        owner.events.append(from_http(headers, content))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/events"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ids(self, kind: str) -> set[str]:
        return {event["id"] for event in list(self.events) if event["type"] == kind}


@pytest.fixture
def sink() -> Iterator[SinkServer]:
    made = SinkServer()
    yield made
    made.close()


def ask(http: httpx.Client, count: int = 1, **given: Any) -> list[str]:
    answers = [http.post(INFER, json=body(**given)) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.headers["modelyard-prediction-id"] for answer in answers]


def test_an_answer_is_two_events_as_kserve_names_them(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("geheim\n")
    given = {"sink_url": sink.url, "sink_token_file": tmp_path / "token", "sink_namespace": "grid", "instance": "pod-1"}
    with a_server(platform, bundles, **given) as http:
        (id_,) = ask(http, rows=3, routing_key='key "ä" 100 %')
        eventually(lambda: len(sink.events) == 2)

    question, answer = sorted(sink.events, key=lambda event: event["type"])
    assert [event["type"] for event in (question, answer)] == [REQUEST, RESPONSE]
    for event in (question, answer):
        assert (event["id"], event["specversion"], event["source"]) == (id_, "1.0", "/modelyard/inference/pod-1")
        assert (event["inferenceservicename"], event["namespace"]) == ("power", "grid")
        assert (event["component"], event["endpoint"]) == ("predictor", "default")
        told = json.loads(unquote(event["metadata"]))
        assert (told["version"], told["role"], told["revision"]) == (str(bundles[0].digest), "champion", 1)
        assert told["routing_key"] == 'key "ä" 100 %'
        assert told["predict_ms"] > 0 <= told["queue_ms"]
    assert question["recordedtime"] <= answer["time"]
    assert question.data["id"] == answer.data["id"] == id_
    assert question.data["inputs"] == [
        {"name": "load", "shape": [3], "datatype": "FP64", "data": [0.7] * 3},
        {"name": "price", "shape": [3], "datatype": "FP64", "data": [None] * 3},
        {"name": "day", "shape": [3], "datatype": "BYTES", "data": ["mon"] * 3},
    ]
    predicted, score = answer.data["outputs"]
    assert (predicted["name"], predicted["shape"], predicted["datatype"]) == ("predict", [3], "INT64")
    assert (score["name"], score["datatype"]) == ("score", "FP64")
    assert {head["authorization"] for head in sink.heads} == {"Bearer geheim"}
    assert {head["content-type"] for head in sink.heads} == {"application/json"}


def test_redacted_features_reach_neither_disk_nor_drift_nor_sink(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer
) -> None:
    with a_server(platform, bundles, sink_url=sink.url) as http:
        platform.registry.route("power", str(bundles[0].digest), redact=("day",))
        eventually(lambda: http.get("/v1/served").json()["models"][0]["revision"] == 2)
        platform.drift.away, sink.status = True, lambda headers: 503
        (id_,) = ask(http, day="a-secret-day")
        written = b"".join(path.read_bytes() for path in platform.data_dir.rglob("*") if path.is_file())
        platform.drift.away, sink.status = False, lambda headers: 202
        eventually(lambda: sink.ids(RESPONSE) == {id_} and platform.drift.role("champion"))

    assert id_.encode() in written and b"a-secret-day" not in written
    assert [one["features"] for one in platform.drift.role("champion")] == [{"load": 0.7, "price": None}]
    questions = [event for event in sink.events if event["type"] == REQUEST]  # sent again, where one was away
    names = [[tensor["name"] for tensor in question.data["inputs"]] for question in questions]
    assert names == [["load", "price"]] * len(questions) != []


def test_a_request_that_was_written_in_several_blocks_is_two_events(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer
) -> None:
    with a_server(platform, bundles, sink_url=sink.url) as http:
        ids = [*ask(http, 3), *ask(http, rows=1001), *ask(http, 3)]
        eventually(lambda: sink.ids(RESPONSE) == set(ids))

    sizes = [event.data["outputs"][0]["shape"] for event in sink.events if event["type"] == RESPONSE]
    assert sorted(sizes) == [[1]] * 6 + [[1001]]


def test_what_is_not_sampled_is_in_no_event(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer
) -> None:
    with a_server(platform, bundles, sink_url=sink.url) as http:
        platform.registry.route("power", str(bundles[0].digest), log_payloads=0.0)
        eventually(lambda: http.get("/v1/served").json()["models"][0]["revision"] == 2)
        ask(http, 5)
        eventually(lambda: len(platform.drift.role("champion")) == 5)
        platform.registry.route("power", str(bundles[0].digest), log_payloads=1.0)
        eventually(lambda: http.get("/v1/served").json()["models"][0]["revision"] == 3)
        (id_,) = ask(http)
        eventually(lambda: len(sink.events) == 2)

    assert sink.ids(REQUEST) == {id_}


def test_a_sink_that_is_away_holds_up_neither_callers_nor_drift_and_gets_all_later(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer
) -> None:
    sink.status = lambda headers: 503
    with a_server(platform, bundles, sink_url=sink.url) as http:
        ids = ask(http, 50)
        eventually(lambda: len(platform.drift.role("champion")) == 50)
        checks = eventually(lambda: _unwell(http))
        assert http.get("/health/ready").status_code == 200
        sink.status = lambda headers: 202
        eventually(lambda: sink.ids(RESPONSE) == sink.ids(REQUEST) == set(ids))
        eventually(lambda: http.get("/health/ready").json()["checks"]["sink"] == "ok")

    assert checks == "events wait on disk: the sink answers 503"


def _unwell(http: httpx.Client) -> str | None:
    told: str = http.get("/health/ready").json()["checks"]["sink"]
    return None if told == "ok" else told


def test_while_drift_is_away_the_sink_is_served(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer
) -> None:
    platform.drift.away = True
    with a_server(platform, bundles, sink_url=sink.url) as http:
        ids = ask(http, 20)
        eventually(lambda: sink.ids(RESPONSE) == set(ids))
        assert platform.drift.events == {}
        platform.drift.away = False
        eventually(lambda: len(platform.drift.role("champion")) == 20)


def test_a_slow_sink_costs_callers_nothing(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer
) -> None:
    sink.delay_s = 0.5
    with a_server(platform, bundles, sink_url=sink.url, sink_connections=1, flush_s=0) as http:
        began = time.monotonic()
        ids = ask(http, 20)
        took_s = time.monotonic() - began
        eventually(lambda: len(platform.drift.role("champion")) == 20)
        assert len(sink.events) < 2 * len(ids)
        sink.delay_s = 0.0
        eventually(lambda: sink.ids(RESPONSE) == set(ids))

    assert took_s < 0.5 * 2 * len(ids) / 2


@pytest.mark.parametrize("status", [400, 404, 413], ids=str)
def test_what_the_sink_refuses_is_set_aside_and_the_rest_goes_on(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer, status: int
) -> None:
    refused: list[str] = []

    def first_request_only(headers: dict[str, str]) -> int:
        if headers["ce-type"] == REQUEST and (not refused or headers["ce-id"] in refused):
            refused.append(headers["ce-id"])
            return status
        return 202

    sink.status = first_request_only
    before = metrics.SINK_REFUSED._value.get()
    with a_server(platform, bundles, sink_url=sink.url, sink_connections=1) as http:
        ids = ask(http, 5)
        eventually(lambda: sink.ids(RESPONSE) == set(ids))
    letters = (platform.data_dir / "inference" / "spool" / "refused-sink.jsonl").read_text().splitlines()

    assert sink.ids(REQUEST) == set(ids) - set(refused)
    assert [json.loads(line)["id"] for line in letters] == refused
    assert metrics.SINK_REFUSED._value.get() - before == len(refused) == 1


def test_after_kill_9_the_sink_gets_every_answer_that_left(
    platform: Platform, bundles: tuple[Packed, Packed], sink: SinkServer, tmp_path: Path
) -> None:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    server = InferenceProcess(platform, tmp_path / "server", sink_url=sink.url)
    try:
        server.start()
        server.wait_ready()
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            ids = ask(http, 30)
            eventually(lambda: len(sink.events) > 10)
            sink.status = lambda headers: 503
            ids += ask(http, 30)
        server.kill()
        sink.status = lambda headers: 202
        server.start()
        eventually(lambda: sink.ids(RESPONSE) == sink.ids(REQUEST) == set(ids), 60)
    finally:
        server.close()


KIB = 1024
AN_EVENT = SentEvent({}, b"{}")


@contextmanager
def a_talker(say: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[socket.socket]]]:
    """Have a sink that says what it likes, and yield where it is and who has called."""
    callers: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            callers.append(caller)
            with caller, suppress(OSError):
                while asked := caller.recv(KIB):
                    if asked.endswith(AN_EVENT.body):  # which may come after its head
                        say(caller)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", callers
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@contextmanager
def a_sink_at(url: str, timeout_s: float) -> Iterator[HttpSink]:
    made = HttpSink(url, token_file=None, timeout_s=timeout_s, connections=1)
    try:
        yield made
    finally:
        made.close()


def test_an_answer_whose_body_drips_takes_no_longer_than_an_event_may() -> None:
    def drip(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n")
        for _ in range(600):
            caller.sendall(b"a")
            time.sleep(0.05)

    with a_talker(drip) as (url, _), a_sink_at(url, 0.3) as sink:
        began = time.monotonic()
        fate = sink.post(AN_EVENT)
        took_s = time.monotonic() - began

    assert fate == "taken"
    assert 0.25 < took_s < 10


def drip_a_head(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    for _ in range(200):
        caller.sendall(b"a")
        time.sleep(0.05)


def test_an_answer_whose_head_drips_is_given_up_when_an_event_may_take_no_longer() -> None:
    with a_talker(drip_a_head) as (url, _), a_sink_at(url, 0.3) as sink:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="ReadTimeout"):
            sink.post(AN_EVENT)

        assert 0.25 < time.monotonic() - began < 5


def test_a_sink_is_reached_by_the_proxy_of_the_environment_in_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_talker(drip_a_head) as (proxy, callers):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        with a_sink_at("http://events.example/", 0.3) as sink:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="ReadTimeout"):
                sink.post(AN_EVENT)

            assert 0.25 < time.monotonic() - began < 5
    assert len(callers) == 1


@pytest.mark.parametrize(("status", "fate"), [(200, "taken"), (400, "refused")])
def test_of_a_long_answer_little_is_read(status: int, fate: str) -> None:
    sent: list[int] = []

    def flood(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 %d .\r\ntransfer-encoding: chunked\r\n\r\n" % status)
        for _ in range(256):
            caller.sendall(b"%x\r\n" % KIB**2 + b"a" * KIB**2 + b"\r\n")
            sent.append(KIB**2)
        caller.sendall(b"0\r\n\r\n")

    with a_talker(flood) as (url, _), a_sink_at(url, 10) as sink:
        assert sink.post(AN_EVENT) == fate

    assert len(sent) < 128, "what lies in buffers"


def test_a_sink_that_says_little_keeps_its_connection() -> None:
    def answer(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 202 .\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")

    with a_talker(answer) as (url, callers), a_sink_at(url, 10) as sink:
        assert [sink.post(AN_EVENT) for _ in range(3)] == ["taken"] * 3

    assert len(callers) == 1


class SinkThatHangs:
    """Takes some events, and then none, until it is let go."""

    def __init__(self, takes: int) -> None:
        self._turns = iter(range(takes))
        self.hangs, self.go = threading.Event(), threading.Event()

    def post(self, event: SentEvent) -> Fate:
        if next(self._turns, None) is None:
            self.hangs.set()
            self.go.wait(30)
        return "taken"

    def close(self) -> None: ...


@pytest.mark.parametrize("kind", ["own", "former"])
def test_a_sink_that_hangs_holds_up_the_end_no_longer_than_allowed_and_gets_the_rest_later(
    tmp_path: Path, kind: str
) -> None:
    sink, stop = SinkThatHangs(10), threading.Event()
    spool = PayloadSpool(tmp_path / "spool-1", max_bytes=256 * KIB, segment_bytes=64 * KIB, readers=(DRIFT, SINK))
    spool.append([a_record(number) for number in range(100)])
    dead, place = DeadLetters(tmp_path / "refused"), Place("/x", "")
    sender = SinkSender(spool, sink, dead, place, most_rows=1000, connections=2, flush_s=0.1)
    former = FormerSpools(tmp_path, 1, lambda folder: spool, lambda opened: [sender])
    thread = threading.Thread(target={"own": sender.run, "former": former.send}[kind], args=(stop,))
    try:
        thread.start()
        assert sink.hangs.wait(10)
        stop.set()
        thread.join(10)
        ended, left = not thread.is_alive(), spool.read(100, SINK)
    finally:
        sink.go.set()
        thread.join(30)
        sender.close()
        spool.close()

    assert ended
    assert left is not None
    assert [json.loads(row)["id"] for row in left.payloads] == [f"p{number}/0" for number in range(5, 100)]


@pytest.mark.parametrize(("away", "quick"), [(SINK, DRIFT), (DRIFT, SINK)], ids=["sink away", "drift away"])
def test_the_reader_that_is_behind_loses_its_oldest_and_the_other_gets_all(
    tmp_path: Path, away: str, quick: str
) -> None:
    lost = metrics.READER_LOST.labels(away)._value
    before = lost.get()
    spool = PayloadSpool(tmp_path / "spool", max_bytes=16 * KIB, segment_bytes=2 * KIB, readers=(DRIFT, SINK))
    try:
        got = []
        for number in range(200):
            spool.append([a_record(number)])
            while batch := spool.read(500, quick):
                got += batch.payloads
                spool.sent(batch.after, quick)
        left = []
        while batch := spool.read(500, away):
            left += batch.payloads
            spool.sent(batch.after, away)
        state = spool.state
    finally:
        spool.close()

    assert [json.loads(payload)["id"] for payload in got] == [f"p{number}/0" for number in range(200)]
    assert left == got[-len(left) :] and 0 < len(left) < 200
    assert lost.get() - before == sum(len(framed([pack(a_record(number))])) for number in range(200 - len(left)))
    assert (state.dropped, state.problem) == (0, None)


def on_disk(spool: PayloadSpool) -> int:
    return sum(path.stat().st_size for path in spool.root.glob("*.events"))


def test_what_made_room_leaves_the_disk_before_the_block_is_written(tmp_path: Path) -> None:
    seen: list[int] = []

    def write(fd: int, parts: Sequence[bytes], start: int) -> int:
        seen.append(on_disk(spool))
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwritev(fd, parts, start)

    is_full = False
    limits: dict[str, Any] = {"max_bytes": 16 * KIB, "segment_bytes": 2 * KIB}
    spool = PayloadSpool(tmp_path / "spool", **limits, readers=(DRIFT, SINK), write=write)
    try:
        while spool.pending_bytes(SINK) < 14 * KIB - 400:
            spool.append([a_record(0)])
            while batch := spool.read_blocks(500, KIB**2):
                spool.sent(batch.after)
        full, is_full = on_disk(spool), True
        spool.append([a_record(1, "x" * KIB)])
        state = spool.state
    finally:
        spool.close()

    assert seen[-1] < full
    assert (state.size_bytes, state.dropped) == (on_disk(spool), 1)


def test_a_reader_loses_nothing_to_a_block_that_finds_no_room_all_the_same(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"max_bytes": 16 * KIB, "segment_bytes": 2 * KIB}
    spool = PayloadSpool(tmp_path / "spool", **limits, readers=(DRIFT, SINK))
    try:
        for number in range(20):
            spool.append([a_record(number)])
        for _ in range(2):
            batch = spool.read_blocks(500, KIB**2)
            assert batch is not None
            spool.sent(batch.after)  # and then drift is away as well
        before = spool.pending_bytes(SINK)
        spool.append([a_record(20, "x" * 13 * KIB)])
        state, after = spool.state, spool.pending_bytes(SINK)
    finally:
        spool.close()

    assert (state.dropped, state.size_bytes) == (1, on_disk(spool))
    assert after == before == state.size_bytes


def test_with_both_away_what_is_new_is_dropped_and_each_place_survives_a_restart(tmp_path: Path) -> None:
    def opened() -> PayloadSpool:
        return PayloadSpool(tmp_path / "spool", max_bytes=8 * KIB, segment_bytes=2 * KIB, readers=(DRIFT, SINK))

    spool = opened()
    for number in range(100):
        spool.append([a_record(number)])
    dropped = spool.state.dropped
    batch = spool.read(2, SINK)
    assert batch is not None
    place = batch.after_first(1)
    assert place is not None
    spool.sent(place, SINK)
    spool.close()

    again = opened()
    first = {reader: json.loads(again.read(1, reader).payloads[0])["id"] for reader in (DRIFT, SINK)}  # type: ignore[union-attr]
    again.close()

    assert 0 < dropped < 100
    assert first == {DRIFT: "p0/0", SINK: "p1/0"}


def test_a_sink_beyond_the_allowed_hosts_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="payloads may not go to evil:80; sink_hosts has broker, other:81"):
        InferenceSettings(sink_url="http://evil:80/x", sink_hosts=("broker", "other:81"))

    assert InferenceSettings(sink_url="http://broker:80/x", sink_hosts=("broker",)).sink_url


@pytest.mark.parametrize("url", ["ftp://broker/", "broker:80", "http://"], ids=str)
def test_a_sink_that_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="sink_url"):
        InferenceSettings(sink_url=url)
