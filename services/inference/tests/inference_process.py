"""The inference service as a process of its own, what it is asked, and what it holds: for the tests of faults."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from inference_fakes import GOOD_ROW, Platform, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.testing import free_port_base
from modelyard_common.testing.open_loop import Asked, Load, Outcome

START_S, END_S = 120.0, 40.0
MODEL = "power"
RATE = 120.0
"""Requests a second that leave most of a core idle: what is asked here is what fails, not how fast it is."""


class InferenceProcess:
    """One server; it may be ended and started again on its ports and its data."""

    def __init__(self, platform: Platform, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "log.jsonl"
        self.port = free_port_base(2)
        self.grpc_port = self.port + 1
        self.url = f"http://127.0.0.1:{self.port}"
        given: dict[str, Any] = {
            "port": self.port,
            "grpc_port": self.grpc_port,
            "registry_url": platform.registry_url,
            "drift_url": platform.drift_url,
            "data_dir": folder / "data",
            "poll_s": 0.1,
            "drain_s": 0.5,
            "log_level": "debug",
        } | settings
        self._environment = os.environ | {f"MODELYARD_INFERENCE_{key.upper()}": str(it) for key, it in given.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        """The process that runs now."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> None:
        """Start it; it is not ready yet."""
        command = [sys.executable, "-m", "modelyard_inference.main"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def wait_ready(self, model: str = MODEL) -> None:
        """Wait until it answers for a model."""
        assert self._process is not None
        process = self._process

        def ready() -> bool:
            assert process.poll() is None, self.log[-2000:]
            return all(self._says_yes(path) for path in ("/health/ready", f"/v2/models/{model}/ready"))

        eventually(ready, START_S)

    def terminate(self) -> int:
        """Ask it to end, and return how it did."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(END_S)

    def kill(self) -> None:
        """End it as the kernel does when memory runs out."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            children = self.process.children(recursive=True)
            self.kill()
            for child in children:
                child.kill()

    def get(self, path: str) -> httpx.Response:
        """Ask it something."""
        return httpx.get(self.url + path, trust_env=False, timeout=20)

    def gauge(self, name: str) -> float:
        """Return the value of a metric without labels, or the sum over its labels."""
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return sum(map(float, found))

    def child(self, module: str) -> psutil.Process | None:
        """Return the process of ours that runs a module, if there is one."""
        for found in self.process.children(recursive=True):
            try:
                if any(module in word for word in found.cmdline()):
                    return found
            except psutil.NoSuchProcess:
                continue
        return None

    def holds(self) -> Holding:
        """Return what it and the processes beside it hold."""
        everything = [self.process, *self.process.children(recursive=True)]
        return Holding(
            sum(one.memory_full_info().uss for one in everything) / 2**20,
            sum(one.num_fds() for one in everything),
            sum(one.num_threads() for one in everything),
            len(everything),
            sum(len(one.net_connections()) for one in everything),
        )

    @property
    def peak_mib(self) -> float:
        """The most memory that it has ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024

    def _says_yes(self, path: str) -> bool:
        try:
            return self.get(path).status_code == 200
        except httpx.HTTPError:
            return False


class Holding(NamedTuple):
    """What a server takes from its machine.

    Attributes:
        memory_mib: what would be free without it; pages that it shares with others do not count.
    """

    memory_mib: float
    descriptors: int
    threads: int
    processes: int
    connections: int

    @property
    def files(self) -> int:
        """Descriptors that are not connections: how many of those there are is up to the callers."""
        return self.descriptors - self.connections


@contextmanager
def processes(
    platform: Platform, bundles: Sequence[Packed], folder: Path, count: int = 1, **settings: Any
) -> Iterator[list[InferenceProcess]]:
    """Serve the first bundle as the champion of ``power``, by several servers."""
    platform.registry.add(*bundles)
    platform.registry.route(MODEL, str(bundles[0].digest))
    servers = [InferenceProcess(platform, folder / f"server-{place}", **settings) for place in range(count)]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_ready()
        yield servers
    finally:
        for server in servers:
            server.close()


def good_requests(row: dict[str, Any] = GOOD_ROW, model: str = MODEL) -> list[Asked]:
    """Return the same row in each protocol that HTTP carries."""
    tensors: list[dict[str, Any]] = [
        {"name": "load", "shape": [1], "datatype": "FP64", "data": [row["load"]]},
        {"name": "price", "shape": [1], "datatype": "FP64", "data": [row["price"]]},
        {"name": "day", "shape": [1], "datatype": "BYTES", "data": [row["day"]]},
    ]
    load = {"name": "load", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [load, *tensors[1:]]}).encode()
    raw = np.array([row["load"]], "<f8").tobytes()
    as_json = {"content-type": "application/json"}
    names = ",".join(row)
    return [
        Asked(f"/v2/models/{model}/infer", json.dumps({"inputs": tensors}).encode(), as_json),
        Asked(f"/v2/models/{model}/infer", head + raw, {"inference-header-content-length": str(len(head))}),
        Asked(f"/v1/models/{model}:predict", json.dumps({"instances": [row]}).encode(), as_json),
        Asked(f"/models/{model}/invocations", json.dumps({"dataframe_records": [row]}).encode(), as_json),
        Asked(
            f"/models/{model}/invocations",
            f"{names}\n{','.join(map(str, row.values()))}\n".encode(),
            {"content-type": "text/csv"},
        ),
    ]


def tables(row: dict[str, Any] = GOOD_ROW) -> list[Asked]:
    """Return a row as Parquet, and as an Arrow stream."""
    table = pa.table({name: [value] for name, value in row.items()})
    parquet, stream = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    kinds = {"parquet": parquet, "arrow.stream": stream}
    return [
        Asked("/invocations", content.getvalue(), {"content-type": f"application/vnd.apache.{kind}"})
        for kind, content in kinds.items()
    ]


def prediction_of(outcome: Outcome) -> Any:
    """Return the label of an answer of one row, in whatever protocol it came."""
    document = json.loads(outcome.content)
    if "outputs" in document:
        return next(output["data"][0] for output in document["outputs"] if output["name"] == "predict")
    return document["predictions"][0]


def answers_by_version(load: Load) -> dict[str, set[Any]]:
    """Return what each version has answered."""
    found: dict[str, set[Any]] = {}
    for outcome in load.outcomes:
        if not outcome.failure:
            found.setdefault(outcome.headers["modelyard-version"], set()).add(prediction_of(outcome))
    return found


def prediction_ids(load: Load) -> set[str]:
    """Return the ids of the rows that were answered."""
    return {f"{one.headers['modelyard-prediction-id']}/0" for one in load.outcomes if not one.failure}
