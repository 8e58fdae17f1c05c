"""Servers of a benchmark: who has no turn takes no time from who has, and all of them end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
from bench.inference.processes import Process, started

BUSY = "import subprocess, sys\n"
BUSY += "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
BUSY += "while True: pass"


def spent_in(server: Process, seconds: float) -> float:
    before = server.cpu_s()
    time.sleep(seconds)
    return server.cpu_s() - before


def test_a_server_works_in_its_turn_and_takes_nothing_outside_of_it(tmp_path: Path) -> None:
    with started([sys.executable, "-c", BUSY], {}, None, tmp_path) as server:
        until = time.monotonic() + 20
        while len(server.tree()) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        server.pause()
        outside = spent_in(server, 0.3)
        with server.going():
            before = server.cpu_s()
            while server.cpu_s() - before < 0.2:
                assert time.monotonic() < until + 20
                time.sleep(0.01)
        states = {process.status() for process in server.tree()}
        left = server.tree()

    assert outside == 0
    assert states == {psutil.STATUS_STOPPED}
    assert len(left) == 2
    assert psutil.wait_procs(left, timeout=20)[1] == []
