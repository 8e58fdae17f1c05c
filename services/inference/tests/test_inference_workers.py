"""One server of several processes, as real ones: counters add up, it drains, it is ready as a whole, none is lost."""

from __future__ import annotations

import collections
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from inference_fakes import GOOD_ROW, ListReports, Platform, digest_of, eventually
from inference_process import InferenceProcess
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import Unavailable
from modelyard_common.merged_metrics import OVER_PROCESSES
from modelyard_common.shared_metrics import make_area
from modelyard_contracts.registry_v1 import RuntimeReport
from modelyard_inference.adapters.reports import RuntimeReports
from modelyard_inference.adapters.workers.channel import Channel
from modelyard_inference.adapters.workers.merged_reports import MergedReports
from modelyard_inference.adapters.workers.pod import Pod, Seat
from modelyard_inference.adapters.workers.pod_metrics import GAUGE_RULES
from modelyard_inference.adapters.workers.supervisor import Supervisor
from modelyard_inference.api.grpc import open_inference_pb2 as pb
from modelyard_inference.domain.routing import Candidate, Routing, Version
from prometheus_client import REGISTRY
from test_inference_grpc_process import REQUEST

INFER = "/v2/models/power/infer"
WORKER = "modelyard_inference.worker"


def body(**parameters: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "load", "shape": [1], "datatype": "FP64", "data": [GOOD_ROW["load"]]},
            {"name": "day", "shape": [1], "datatype": "BYTES", "data": [GOOD_ROW["day"]]},
        ],
        "parameters": parameters,
    }


def workers_of(server: InferenceProcess) -> list[psutil.Process]:
    found = [one for one in server.process.children() if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in found if any(WORKER in word for word in one.cmdline())]


class Callers:
    """Clients that ask one after the other, each on connections of its own, until they are told to stop."""

    def __init__(self, url: str, count: int = 4) -> None:
        self.answered: list[str] = []
        self.failed: list[str] = []
        self.sent = 0
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        while not self._stop.is_set():
            # A connection lives for some requests, so that all workers get some.
            with httpx.Client(base_url=self._url, trust_env=False, timeout=20) as http:
                for _ in range(5):
                    if not self._one(http):
                        break

    def _one(self, http: httpx.Client) -> bool:
        with self._lock:
            self.sent += 1
        try:
            answer = http.post(INFER, json=body())
        except httpx.HTTPError as exc:
            self.failed.append(type(exc).__name__)
            return False
        if answer.status_code == 200:
            self.answered.append(answer.headers["modelyard-prediction-id"])
        else:
            self.failed.append(f"{answer.status_code} {answer.text}")
        return not self._stop.is_set()


@pytest.fixture
def serving(platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    servers: list[InferenceProcess] = []

    def start(**settings: Any) -> InferenceProcess:
        server = InferenceProcess(platform, tmp_path / "server", **({"processes": 2, "drain_s": 0.2} | settings))
        servers.append(server)
        server.start()
        server.wait_ready()
        return server

    yield start
    for server in servers:
        server.close()


def counted(server: InferenceProcess) -> float:
    """Return what all workers together have answered, as told by one that lives."""
    (found,) = eventually(lambda: (server.gauge("modelyard_inference_requests_total"),))
    return float(found)


def test_counters_add_up_to_what_clients_counted_though_a_worker_is_killed(
    serving: Callable[..., InferenceProcess], platform: Platform
) -> None:
    server = serving()
    seen = [counted(server)]
    with Callers(server.url) as callers:
        eventually(lambda: len(callers.answered) > 100)
        seen.append(counted(server))
        workers_of(server)[0].kill()
        for _ in range(5):
            seen.append(counted(server))
        eventually(lambda: server.gauge("modelyard_inference_workers_count") == 2 and len(callers.answered) > 300)

    total = counted(server)

    assert sorted(seen) == seen, "a counter went backwards"
    assert len(callers.answered) <= total <= callers.sent
    assert len(callers.failed) <= 4, "more than what was in flight"
    assert {one.split()[0] for one in callers.failed}.isdisjoint({"500", "503"})
    assert server.gauge("modelyard_inference_worker_restarts_total") == 1
    eventually(lambda: {f"{one}/0" for one in callers.answered} <= {one for one, _ in platform.drift.events})
    assert len(set(callers.answered)) == len(callers.answered)


def test_the_histogram_of_all_workers_is_one_histogram(serving: Callable[..., InferenceProcess]) -> None:
    server = serving()
    with Callers(server.url) as callers:
        eventually(lambda: len(callers.answered) > 50)

    text = server.get("/metrics").text

    buckets = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("modelyard_inference_predict_seconds_bucket{") and 'role="champion"' in line
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == server.gauge("modelyard_inference_predict_seconds_count") == len(callers.answered)
    assert text.count("# TYPE modelyard_inference_requests_total counter") == 1
    assert server.gauge("process_resident_memory_bytes") > sum(one.memory_info().rss for one in workers_of(server)) / 2


def test_sigterm_drains_every_worker_and_no_request_is_lost(
    serving: Callable[..., InferenceProcess], platform: Platform
) -> None:
    server = serving(drain_s=1.0)
    workers = workers_of(server)
    codes: list[int] = []
    with Callers(server.url) as callers:
        eventually(lambda: len(callers.answered) > 50)
        ending = threading.Thread(target=lambda: codes.append(server.terminate()))
        told = time.monotonic()
        ending.start()
        eventually(lambda: callers.failed)
        refused_s = time.monotonic() - told
        ending.join(40)

    assert codes == [0]
    assert refused_s >= 1.0, "who comes within the drain window is answered"
    assert not any(one[0].isdigit() for one in callers.failed)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers)
    assert {f"{one}/0" for one in callers.answered} <= {one for one, _ in platform.drift.events}


def test_a_killed_supervisor_leaves_no_worker_behind(serving: Callable[..., InferenceProcess]) -> None:
    server = serving()
    everything = server.process.children(recursive=True)
    assert len(everything) >= 2

    server.kill()

    gone, alive = psutil.wait_procs(everything, timeout=10)
    assert (len(gone), alive) == (len(everything), [])
    server.start()
    server.wait_ready()


def test_every_gauge_says_how_it_is_seen_over_several_processes() -> None:
    ruled = {*GAUGE_RULES, *OVER_PROCESSES}
    shown = {
        one.name
        for one in REGISTRY.collect()
        if one.type in ("gauge", "unknown") and one.name.startswith(("modelyard_inference_", "modelyard_http_"))
    }

    assert shown <= ruled, "name it in workers/pod_metrics.py"


def test_the_server_is_ready_when_all_of_its_workers_are(serving: Callable[..., InferenceProcess]) -> None:
    server = serving(processes=3)

    pids = set()
    for _ in range(60):
        assert server.get("/health/ready").status_code == 200
        assert server.get("/v2/models/power/ready").status_code == 200
    with Callers(server.url, 8) as callers:
        eventually(lambda: len(callers.answered) > 200)
    for worker in workers_of(server):
        pids.add(worker.pid)
    assert (len(pids), callers.failed) == (3, [])


def test_unload_and_load_act_on_all_workers_and_on_those_that_come_later(
    serving: Callable[..., InferenceProcess],
) -> None:
    server = serving()

    def statuses() -> set[int]:
        return {server.get("/v2/models/power/ready").status_code for _ in range(20)}

    def post(what: str) -> int:
        return httpx.post(f"{server.url}/v2/repository/models/{what}", trust_env=False, timeout=30).status_code

    assert post("power/unload") == 200
    unloaded = statuses()
    workers_of(server)[0].kill()
    eventually(lambda: server.gauge("modelyard_inference_worker_restarts_total") == 1)
    eventually(lambda: "not ready" not in server.get("/health/ready").json()["checks"]["other workers"])
    after = statuses()
    loaded = post("power/load")

    assert (200 not in unloaded, 200 not in after, loaded, statuses()) == (True, True, 200, {200})
    assert post("nobody/unload") == 404


def test_a_canary_has_its_share_and_its_keys_over_all_workers(
    serving: Callable[..., InferenceProcess], platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    server = serving()
    one, two = (str(bundle.digest) for bundle in bundles)
    platform.registry.route("power", one, two, weight=30)
    eventually(lambda: server.gauge("modelyard_inference_routing_revision") == 2)
    routing = Routing("power", 2, Version(1, one), Candidate(Version(2, two), 30))
    answered: dict[str, set[str]] = collections.defaultdict(set)

    for turn in range(2):
        del turn
        for number in range(100):
            with httpx.Client(base_url=server.url, trust_env=False) as http:
                answer = http.post(INFER, json=body(routing_key=f"key {number}"))
                answered[f"key {number}"].add(answer.headers["modelyard-version"])

    assert answered == {key: {two if routing.picks_candidate(key) else one} for key in answered}


def test_a_version_is_reported_as_served_once_all_workers_serve_it(
    serving: Callable[..., InferenceProcess], platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    server = serving()
    eventually(lambda: platform.registry.outcomes(bundles[0].digest) == ["serving"])
    other = workers_of(server)[1]
    other.suspend()
    try:
        platform.registry.route("power", str(bundles[1].digest))
        eventually(lambda: server.log.count('"revision":2') + server.log.count('"revision": 2') >= 1)
        before = platform.registry.outcomes(bundles[1].digest)
    finally:
        other.resume()
    eventually(lambda: platform.registry.outcomes(bundles[1].digest) == ["serving"])

    assert before == []


class Away(ListReports):
    """A registry that cannot be reached until it is back."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    def report(self, model: str, report: RuntimeReport) -> None:
        if self.is_away:
            raise Unavailable("it is away")
        self.tell(model, report.digest, report.revision, report.outcome, report.reason)


def test_that_a_version_has_tripped_is_told_though_another_worker_was_replaced_meanwhile() -> None:
    registry, digest = Away(), digest_of("a")
    reports = RuntimeReports(registry, "here")
    merged = MergedReports(reports, 2)

    def serves(*slots: int) -> None:
        for slot in slots:
            merged.tell(slot, "power", digest, 4, "serving")
        reports.deliver(threading.Event())

    serves(0, 1)
    registry.is_away = True
    merged.tell(0, "power", digest, 4, "tripped", "it was late")
    merged.gone(1)
    serves(1)
    registry.is_away = False
    serves(1)
    speaks_for_all = registry.outcomes(digest)
    merged.gone(0)
    serves(0)

    assert speaks_for_all == ["serving", "tripped"]
    assert registry.outcomes(digest) == ["serving", "tripped", "serving"]


def test_that_a_version_has_tripped_is_told_though_it_is_served_again_before_the_registry_is_back() -> None:
    registry, digest = Away(), digest_of("a")
    registry.is_away = True
    reports = RuntimeReports(registry, "here")
    for outcome in ("serving", "tripped", "serving"):
        reports.tell("power", digest, 4, outcome)
        reports.deliver(threading.Event())

    registry.is_away = False
    reports.deliver(threading.Event())

    assert registry.outcomes(digest) == ["tripped", "serving"]


def test_what_former_workers_wrote_is_sent_by_fewer(
    serving: Callable[..., InferenceProcess], platform: Platform, tmp_path: Path
) -> None:
    platform.drift.away = True
    server = serving(processes=3, flush_s=0)
    with Callers(server.url, 8) as callers:
        eventually(lambda: len(callers.answered) > 100)
    folders = sorted(path.name for path in (tmp_path / "server" / "data" / "inference").glob("spool*"))
    assert server.terminate() == 0
    platform.drift.away = False

    serving(processes=1)
    eventually(lambda: {f"{one}/0" for one in callers.answered} <= {one for one, _ in platform.drift.events})

    assert folders == ["spool", "spool-1", "spool-2"]
    left = (tmp_path / "server" / "data" / "inference").glob("spool-*")
    eventually(lambda: not any(path.exists() for path in left))


def test_a_port_that_is_taken_ends_the_server_with_its_name(
    serving: Callable[..., InferenceProcess], platform: Platform, tmp_path: Path
) -> None:
    server = serving()
    second = InferenceProcess(platform, tmp_path / "second", processes=2, port=server.port)
    second.start()
    try:
        assert second.process.wait(30) == 1
        assert f"port: 127.0.0.1:{server.port} cannot be listened on" in second.log
    finally:
        second.close()


def test_a_worker_that_is_stopped_by_a_signal_is_begun_again_and_takes_no_request_before_it_can_answer(
    serving: Callable[..., InferenceProcess],
) -> None:
    server = serving()
    with Callers(server.url) as callers:
        eventually(lambda: len(callers.answered) > 20)
        workers_of(server)[1].send_signal(signal.SIGTERM)
        eventually(lambda: server.gauge("modelyard_inference_worker_restarts_total") == 1)
        eventually(lambda: len(callers.answered) > 200)

    assert {one for one in callers.failed if one[0].isdigit()} == set(), "nobody was told that it is not ready"


def test_a_worker_that_stands_still_is_replaced(serving: Callable[..., InferenceProcess]) -> None:
    server = serving(worker_patience_s=3)
    stuck = workers_of(server)[0]

    stuck.suspend()

    psutil.wait_procs([stuck], timeout=40)
    assert stuck.pid not in [one.pid for one in workers_of(server)]
    eventually(lambda: len(workers_of(server)) == 2 and server.gauge("modelyard_inference_worker_restarts_total") == 1)
    assert "worker.stands_still" in server.log


@dataclass
class TwoWorkers:
    """A pod of two, whose workers are only the far ends of their channels."""

    busy: threading.Event = field(default_factory=threading.Event)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pod = Pod(2, MergedReports(ListReports(), 2))
        self.seats, self.workers, self.ends = [], [], []
        handlers = {"beat": lambda: True, "collect": list, "others": lambda *told: None, "load": self._load}
        for slot in range(2):
            ours, theirs = socket.socketpair()
            worker = Channel(theirs, handlers, lambda: None)
            worker.start()
            seat = Seat(slot, Channel(ours, self.pod.handlers(slot), lambda: None), make_area())
            self.pod.seat(seat)
            worker.tell("up")
            self.seats.append(seat)
            self.workers.append(worker)
            self.ends += [ours, theirs]
        eventually(lambda: all(seat.is_up for seat in self.seats))

    def _load(self, model: str) -> None:
        self.loads.append(model)
        self.busy.wait(30)

    def close(self) -> None:
        self.busy.set()
        for seat in self.seats:
            self.pod.vacate(seat)
        for worker in self.workers:
            worker.close()
        for end in self.ends:
            end.close()


def test_loads_that_take_long_hold_up_neither_heart_beats_nor_scrapes() -> None:
    two = TwoWorkers()
    asking = [
        threading.Thread(target=two.workers[1].ask, args=("load", f"m{number}"), kwargs={"timeout_s": 30})
        for number in range(9)
    ]
    try:
        for one in asking:
            one.start()
        eventually(lambda: len(two.loads) >= 8)

        beats = [two.pod.beats(seat, 5.0) for seat in two.seats]
        content, _ = two.workers[1].ask("metrics", timeout_s=5.0)
    finally:
        two.busy.set()
        for one in asking:
            one.join()
        two.close()

    assert beats == [True, True]
    assert b"modelyard_inference_workers_count 2" in content


A_WORKER = """
import asyncio, os, signal, sys, time
from pathlib import Path
from modelyard_inference.adapters.workers.member import Member
from modelyard_inference.adapters.workers.post import Post

member = Member(Post.read(sys.argv[1]))
member.begin(
    None,
    settled=lambda: True,
    draining=lambda: False,
    spool=lambda: None,
    broken=lambda: "it is" if (Path(__file__).parent / f"broken-{os.getpid()}").exists() else None,
)

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await member.before_listening()
    member.say(None)
    await stop.wait()

asyncio.run(main())
time.sleep(LAST_WORDS_S)
"""


@pytest.fixture
def supervising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return what runs two workers that only say how they are, until something is over, and returns the code."""

    def run(during: Callable[[Supervisor], None], *, last_words_s: float = 0.0) -> int:
        (tmp_path / "a_worker.py").write_text(A_WORKER.replace("LAST_WORDS_S", str(last_words_s)))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
        pod = Pod(2, MergedReports(ListReports(), 2))
        supervisor = Supervisor(pod, 2, port=1, grpc_port=2, module="a_worker", end_s=20.0, patience_s=1.0)

        def play() -> None:
            try:
                eventually(lambda: pod.is_complete, 30)
                during(supervisor)
            finally:
                supervisor._events.put(supervisor._end)

        playing = threading.Thread(target=play)
        playing.start()
        try:
            return supervisor.run()
        finally:
            playing.join()

    return run


def test_a_worker_that_has_drained_may_end_in_its_own_time(supervising: Callable[..., int]) -> None:
    assert supervising(lambda supervisor: None, last_words_s=2.5) == 0


def test_a_worker_that_cannot_be_begun_again_at_once_costs_no_other(supervising: Callable[..., int]) -> None:
    seen: list[Any] = []

    def during(supervisor: Supervisor) -> None:
        first, second = supervisor._places
        assert first.process is not None
        ended, other = first.process, second.process
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            ended.kill()
            eventually(lambda: first.failures >= 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        eventually(lambda: first.seat is not None and first.seat.is_ready)
        seen.extend([first.process is not ended, second.process is other])

    code = supervising(during)

    assert (seen, code) == ([True, True], 0)


def test_a_worker_that_does_not_do_its_part_is_replaced_though_its_event_loop_turns(
    supervising: Callable[..., int], tmp_path: Path
) -> None:
    seen: list[bool] = []

    def during(supervisor: Supervisor) -> None:
        first, second = supervisor._places
        assert first.process is not None
        broken, other = first.process, second.process
        (tmp_path / f"broken-{broken.pid}").touch()
        eventually(lambda: first.process is not broken and first.seat is not None and first.seat.is_ready, 30)
        seen.extend([broken.returncode == -signal.SIGKILL, second.process is other])

    assert (supervising(during), seen) == (0, [True, True])


def test_grpc_is_spoken_by_all_workers_on_one_port(serving: Callable[..., InferenceProcess]) -> None:
    server = serving()
    ids: set[str] = set()
    for _ in range(24):
        # A connection of its own each time: channels to one address share theirs otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            ids.add(infer(REQUEST, timeout=20).parameters["modelyard-prediction-id"].string_param)
    busy = [
        any(one.laddr.port == server.grpc_port and one.status == psutil.CONN_LISTEN for one in worker.net_connections())
        for worker in workers_of(server)
    ]

    assert (len(ids), busy) == (24, [True, True])
    assert counted(server) == server.gauge("modelyard_grpc_requests_total") == 24
