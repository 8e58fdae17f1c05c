"""One supervisor with small programs: real processes that start in no time, so that every road can be walked."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from cli_stage import lives, wait_until
from modelyard_cli.embedded.layout import Layout, Program
from modelyard_cli.embedded.platform import Platform, find_supervisor, stop_leftovers
from modelyard_cli.embedded.process import Supervised, living
from modelyard_common.errors import Conflict, Unavailable
from modelyard_common.testing import free_port_base

SERVER = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
if len(sys.argv) > 2 and os.fork() == 0:  # a worker, which holds the port as well
    import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class SmallLayout(Layout):
    """The folder and the ports of the real one, with programs that only answer."""

    def programs(self, *, prometheus: str | None) -> list[Program]:
        del prometheus
        return [self.small(name) for name in ("registry", "drift")]

    def small(self, name: str, *more: str) -> Program:
        command = (sys.executable, "-c", SERVER, str(self.port(name)), *more)
        return Program(name, command, dict(os.environ), self.port(name), self.probe(name))


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[SmallLayout]:
    found = SmallLayout(tmp_path, free_port_base())
    found.prepare(prometheus=False)
    yield found
    stop_leftovers(found)


Start = Callable[..., Platform]
One = Callable[[Program], Supervised]


@pytest.fixture
def started(layout: SmallLayout) -> Iterator[Start]:
    """Start a platform and wait until it is ready; whoever still holds a folder at the end gives it back."""
    opened: list[Platform] = []

    def start(on: SmallLayout = layout, said: list[str] | None = None) -> Platform:
        opened.append(Platform(on, (said if said is not None else []).append))
        opened[-1].start()
        opened[-1].wait_ready(timeout_s=30)
        return opened[-1]

    yield start
    for platform in opened:
        platform.stop()


@pytest.fixture
def supervised(layout: SmallLayout) -> Iterator[One]:
    """Start one program alone; it is stopped at the end."""
    opened: list[Supervised] = []

    def start(program: Program) -> Supervised:
        opened.append(Supervised(program, layout))
        opened[-1].start()
        return opened[-1]

    yield start
    for process in opened:
        process.stop(grace_s=0.5)


def pids(platform: Platform) -> dict[str, int | None]:
    return {name: process.pid for name, process in platform.processes.items()}


def test_the_next_supervisor_adopts_what_the_last_one_started(layout: SmallLayout, started: Start) -> None:
    first = started()
    before = pids(first)
    first.abandon()
    said: list[str] = []

    second = started(said=said)

    assert pids(second) == before
    assert said == ["found 2 processes of this platform running; they stay as they are"]


def test_two_supervisors_never_hold_one_folder(layout: SmallLayout, started: Start) -> None:
    first = started()

    with pytest.raises(Conflict, match=rf"already runs on .* \(process {os.getpid()}\)"):
        Platform(layout, print).start()

    assert find_supervisor(layout) == os.getpid()
    first.abandon()
    assert find_supervisor(layout) is None


def test_another_process_with_a_number_that_came_back_is_nobodys(layout: SmallLayout) -> None:
    """A pid of before the last boot may be anyone's today: it is neither adopted nor stopped."""
    stranger = psutil.Process()
    born_before = {"pid": stranger.pid, "born": stranger.create_time() - 3600, "port": layout.port("registry")}
    layout.record("registry").write_text(json.dumps(born_before))
    layout.state.write_text(json.dumps(born_before))

    assert find_supervisor(layout) is None
    assert stop_leftovers(layout) == 0
    assert not Supervised(layout.small("registry"), layout).adopt()


@pytest.mark.parametrize("record", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "born": 1}'])
def test_a_record_that_cannot_be_read_is_no_process(layout: SmallLayout, record: str, supervised: One) -> None:
    layout.record("registry").write_text(record)

    assert living(layout.record("registry")) is None
    assert supervised(layout.small("registry")).is_running()


def test_processes_on_other_ports_than_asked_for_are_moved(layout: SmallLayout, started: Start) -> None:
    first = started()
    before = [psutil.Process(pid) for pid in pids(first).values()]
    first.abandon()
    moved = SmallLayout(layout.home, free_port_base())
    said: list[str] = []

    second = started(moved, said)

    assert [process for process in before if lives(process)] == []
    assert all(process.is_ready() for process in second.processes.values())
    assert said[0].startswith("registry runs on another port than --port-base asks for")
    stop_leftovers(moved)


def test_a_taken_port_is_named_with_its_owner_and_nothing_is_started(
    layout: SmallLayout, tmp_path: Path, supervised: One
) -> None:
    holder = supervised(layout.small("drift"))
    wait_until(holder.is_ready, "the holder listens")
    other = SmallLayout(tmp_path / "other", layout.port_base)

    with pytest.raises(Conflict) as refused:
        Platform(other, print).start()

    assert f"port {layout.port('drift')} (drift) is taken by python" in refused.value.message
    assert f"(process {holder.pid})" in refused.value.message
    assert "registry" not in refused.value.message
    assert refused.value.message.endswith("move all ports with --port-base")
    assert list((other.home / "run").iterdir()) == []
    assert find_supervisor(other) is None


def test_a_port_that_somebodys_connection_goes_out_from_is_taken_too(layout: SmallLayout) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as far,
        socket.create_connection(far.getsockname(), source_address=("127.0.0.1", layout.port("drift"))),
        pytest.raises(Conflict) as refused,
    ):
        Platform(layout, print).start()

    assert f"port {layout.port('drift')} (drift) is taken by " in refused.value.message
    assert f"(process {os.getpid()})" in refused.value.message


def test_who_took_the_port_of_one_that_ended_is_named_while_it_is_tried_again(
    layout: SmallLayout, started: Start
) -> None:
    said: list[str] = []
    platform = started(layout, said)
    process = platform.processes["drift"]

    def tried_again() -> bool:
        platform.watch()
        return "is taken" in "".join(said[-1:])

    def back() -> bool:
        platform.watch()
        return process.is_ready()

    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_running(), "it ends")

    with socket.create_server(("127.0.0.1", layout.port("drift"))):
        wait_until(tried_again, "it is tried again")

    assert f"port {layout.port('drift')} (drift) is taken by " in said[-1]
    assert f"(process {os.getpid()})" in said[-1]
    wait_until(back, "it has its port back")


def test_a_program_that_keeps_ending_is_started_again_ever_more_slowly(layout: SmallLayout, supervised: One) -> None:
    program = Program("registry", (sys.executable, "-c", "raise SystemExit(3)"), dict(os.environ), 1, "/")
    process = supervised(program)
    starts = [time.monotonic()]

    while len(starts) < 4:
        assert time.monotonic() - starts[0] < 30
        if process.keep_running():
            starts.append(time.monotonic())
        time.sleep(0.01)

    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses[0] >= 0.2 and pauses[1] >= 0.4 and pauses[2] >= 0.8
    assert process.restarts == 3


def test_who_does_not_come_up_is_named_with_its_log(layout: SmallLayout) -> None:
    @dataclass(frozen=True, slots=True)
    class Broken(SmallLayout):
        def small(self, name: str, *more: str) -> Program:
            good = SmallLayout.small(self, name, *more)
            if name == "registry":
                return good
            return Program(name, (sys.executable, "-c", "print('no disk')"), good.environment, good.port, good.probe)

    broken = Broken(layout.home, layout.port_base)
    platform = Platform(broken, lambda _: None)
    platform.start()
    platform.wait_ready("registry", timeout_s=60)

    with pytest.raises(Unavailable, match=r"drift did not come up within 2 s; see .*logs/drift\.log") as failed:
        platform.wait_ready(timeout_s=2)

    assert "registry" not in failed.value.message
    assert "no disk" in broken.log("drift").read_text()
    platform.stop()


def test_workers_of_a_killed_process_are_swept_before_the_next_one_starts(layout: SmallLayout, supervised: One) -> None:
    process = supervised(layout.small("registry", "with a worker"))
    wait_until(process.is_ready, "it answers")
    assert process.pid is not None
    (worker,) = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_running(), "it ends")
    assert lives(worker)

    wait_until(process.keep_running, "it is started again")

    wait_until(lambda: not lives(worker), "the worker is gone")
    wait_until(process.is_ready, "the new one has the port")


def test_one_that_ignores_the_request_to_end_is_killed_after_its_grace(layout: SmallLayout, supervised: One) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    process = supervised(Program("registry", (sys.executable, "-c", deaf), dict(os.environ), 1, "/"))
    assert process.pid is not None
    found = psutil.Process(process.pid)
    wait_until(lambda: "deaf" in layout.log("registry").read_text(), "it has stopped listening to us")

    process.stop(grace_s=0.2)

    wait_until(lambda: not lives(found), "it is killed")
    assert not layout.record("registry").exists()


def test_a_log_that_has_grown_large_is_put_aside_at_the_next_start(layout: SmallLayout, supervised: One) -> None:
    log = layout.log("registry")
    with log.open("wb") as handle:
        handle.truncate(20 * 1024**2 + 1)

    supervised(layout.small("registry"))

    assert log.with_suffix(".log.1").stat().st_size > 20 * 1024**2
    assert log.stat().st_size < 1024


def test_the_scrape_configuration_names_every_service_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path, 20_000)

    layout.prepare(prometheus=True)

    text = (tmp_path / "prometheus" / "prometheus.yml").read_text()
    for name, port in {"inference": 20_000, "registry": 20_001, "training": 20_002, "drift": 20_003}.items():
        assert text.count(f"'127.0.0.1:{port}'") == 1
        assert f"job_name: modelyard-{name}\n" in text
