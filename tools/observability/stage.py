"""A live platform on a slice of its demo, watched by a Prometheus of its own: for tests, and for the pictures.

The demo's real processes and Debian's real Prometheus, with the rules that the chart ships. Scraped every second, so
that a minute of the loop has as many points as a quarter of an hour in a cluster.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from modelyard_cli.embedded.layout import Layout
from modelyard_common.testing import free_port, free_port_base

from tools.observability.aftermath import OPERATED, answer_late, operated, roll_back
from tools.observability.write import RULES

__all__ = ["BAR_S", "Prometheus", "StageError", "observed_demo"]

ROOT = Path(__file__).parents[2]
_SCRAPE_S = 1
_VARIABLES = {"namespace": ".*", "model": ".*", "version": ".*", "__rate_interval": "15s", "__interval": "15s"}
_WAITS = f'modelyard_registry_promotion_waiting_since_seconds{{model="{OPERATED}"}}'
_SERVES = "max(modelyard_inference_served_number) > 0"
_LATE = 'modelyard_inference_requests_total{outcome!="answered"}'
_ROAD_S = 150.0
"""For one training, on a machine that does much else."""
BAR_S = 15.0
"""A minute of the demo's loop is a quarter of an hour of a cluster's: bars count four times as finely."""


class StageError(Exception):
    """What is to be watched did not come up; the message says what it said."""


@dataclass
class Prometheus:
    """A Prometheus and when what it saw began.

    Attributes:
        home: the folder of what it watched, if it is ours.
        began: Unix seconds.
        ended: Unix seconds of the last look; moves on until it is frozen.
    """

    url: str
    began: float
    ended: float = 0.0
    home: Path | None = None
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer. Raise StageError when it is an error."""
        answer = self.http.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise StageError(f"{parameters}: {answer['error']}")
        return answer["data"]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an expression at the end."""
        found: list[dict[str, Any]] = self.get("query", query=plain(expr), time=self.ended or time.time())["result"]
        return found

    def step(self, *, points: int, bars: bool) -> float:
        """Return the seconds between two values."""
        return BAR_S if bars else max(1.0, ((self.ended or time.time()) - self.began) / points)

    def over_time(self, expr: str, *, points: int = 240, bars: bool = False) -> list[dict[str, Any]]:
        """Return the series of an expression from the beginning to the end.

        Args:
            expr: PromQL, with the variables of a dashboard.
            points: how many values a series may have.
            bars: one value for each stretch that is counted, so that nothing is counted twice.
        """
        end = self.ended or time.time()
        step = self.step(points=points, bars=bars)
        found: list[dict[str, Any]] = self.get("query_range", query=plain(expr), start=self.began, end=end, step=step)[
            "result"
        ]
        return found


def plain(expr: str) -> str:
    """Return PromQL with the variables of a dashboard set to everything."""
    return re.sub(r"\$(\w+)", lambda match: _VARIABLES[match[1]], expr)


@contextmanager
def observed_demo(
    home: Path, *, rows: int, settle_s: float = 8.0, example: str = "electricity", trouble: bool = True
) -> Iterator[Prometheus]:
    """Run a slice of a demo, then what a good demo does not have, and yield Prometheus; the platform still serves.

    Args:
        home: an empty folder.
        rows: of the stream.
        settle_s: how long to watch on, so that rules have seen the end.
        trouble: whether to end with late answers, and with a rollback, after which drift has no window of its champion.
    """
    layout = Layout(home / f"demo-{example}", free_port_base())
    with (
        operated(home, layout) as cluster,
        _prometheus(home, layout, operator_port=cluster.port) as prometheus,
        _demo(home, layout, rows, example) as through,
    ):
        _until(lambda: prometheus.instant(_SERVES), f"{example} was not trained", timeout_s=_ROAD_S)
        cluster.apply(example, layout.url("registry"))
        through()
        _until(
            lambda: prometheus.instant(_WAITS), f"{OPERATED} was not trained, or waits for nobody", timeout_s=_ROAD_S
        )
        if trouble:
            answer_late(layout, example)
            # The first failures of a kind begin a series, in which Prometheus sees none.
            _until(lambda: prometheus.instant(_LATE), "late answers are not counted", timeout_s=_ROAD_S)
            answer_late(layout, example)
            roll_back(layout, example)
        time.sleep(settle_s)
        prometheus.ended = time.time()
        yield prometheus


@contextmanager
def _demo(home: Path, layout: Layout, rows: int, example: str) -> Iterator[Callable[[], None]]:
    """Run the demo; yield what waits until it is through."""
    log = home / "demo.log"
    command = [
        *(sys.executable, "-m", "modelyard_cli.main", "--data-dir", str(home), "--port-base", str(layout.port_base)),
        *("demo", example, "--limit", str(rows)),
    ]
    with log.open("wb") as handle:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=handle, stderr=handle, env=os.environ | {"TERM": "dumb"}, start_new_session=True
        )
    try:
        yield lambda: _await(lambda: "goes on serving" in log.read_text(), process, log, timeout_s=_ROAD_S + rows / 15)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def _prometheus(home: Path, layout: Layout, *, operator_port: int) -> Iterator[Prometheus]:
    configuration = yaml.safe_load(layout.scrape_configuration())
    operator = {"targets": [f"127.0.0.1:{operator_port}"], "labels": {"namespace": "local"}}
    configuration["scrape_configs"].append({"job_name": "modelyard-operator", "static_configs": [operator]})
    configuration["global"] = {"scrape_interval": f"{_SCRAPE_S}s", "evaluation_interval": "2s"}
    configuration["rule_files"] = [str(RULES / "*.yaml")]
    file, log = home / "watch.yml", home / "watch.log"
    file.write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={home / 'watch'}"]
    with log.open("wb") as handle:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=handle, stderr=handle, start_new_session=True
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}", time.time(), home=home)
    try:
        _await(lambda: _ready(prometheus), process, log, timeout_s=30)
        yield prometheus
    finally:
        prometheus.http.close()
        process.terminate()
        process.wait(20)


def _until(done: Callable[[], Any], otherwise: str, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise StageError(otherwise)
        time.sleep(0.2)


def _ready(prometheus: Prometheus) -> bool:
    try:
        return prometheus.http.get(f"{prometheus.url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


def _await(done: Any, process: subprocess.Popen[bytes], log: Path, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StageError(f"{process.args!r} did not come so far: {log.read_text()[-2000:]}")
        time.sleep(0.2)
