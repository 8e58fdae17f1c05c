"""Servers that end and come back under load: nobody who is asked through readiness gets less than an answer."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from inference_fakes import GOOD_ROW, Platform, eventually
from inference_process import MODEL, RATE, InferenceProcess, good_requests, prediction_ids, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import Load, open_loop
from modelyard_inference.api.grpc import open_inference_pb2 as pb

DRAIN_S = 2.0
"""Many looks of whoever asks whether a server is ready, also on a machine that is busy."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_rolling_restart_of_two_replicas_fails_no_request(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    codes = []
    with processes(platform, bundles, tmp_path, 2, drain_s=DRAIN_S) as replicas:
        with open_loop([one.url for one in replicas], good_requests(), rate=RATE) as load:
            for replica in replicas:
                before = replica.process.pid
                codes.append(replica.terminate())
                load.wait_for(50)  # by the other alone
                replica.start()
                replica.wait_ready()
                eventually(lambda url=replica.url: url in load.rotation)
                load.wait_for(50)
                assert replica.process.pid != before
        eventually(lambda: prediction_ids(load) <= logged(platform), 30)

    assert load.failures == []
    assert codes == [0, 0]
    assert {one.target for one in load.outcomes} == {one.url for one in replicas}


@dataclass
class Calls:
    """What became of calls over gRPC.

    Attributes:
        answered: by each server.
        failed: one line a call.
        starts: of each server, as callers know it: one that has come back is another, with a connection of its own.
    """

    answered: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def wait_for(self, more: int, *, by: str) -> None:
        """Wait until one server has answered so many more."""
        before = self.answered[by]
        eventually(lambda: self.failed or self.answered[by] >= before + more, 30)


@contextmanager
def calling(servers: Sequence[InferenceProcess], load: Load, *, callers: int = 4) -> Iterator[Calls]:
    """Call the servers in turn that are ready, by callers that keep their connections and never call twice."""
    calls, ended = Calls(), threading.Event()
    message = request().SerializeToString()

    def call(first: int) -> None:
        ports = {one.url: one.grpc_port for one in servers}
        channels: dict[tuple[str, int], grpc.Channel] = {}
        for turn in itertools.count(first):
            if ended.is_set():
                break
            ready = sorted(load.rotation)
            url = ready[turn % len(ready)]
            known = (url, calls.starts[url])
            if known not in channels:
                channels[known] = grpc.insecure_channel(f"127.0.0.1:{ports[url]}")
            try:
                pb.ModelInferResponse.FromString(channels[known].unary_unary(INFER)(message, timeout=5))
                calls.answered[url] += 1
            except grpc.RpcError as exc:
                calls.failed.append(f"{url}: {exc.code()} {exc.details()}")
            time.sleep(callers / RATE)
        for channel in channels.values():
            channel.close()

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(call, first) for first in range(callers)]
        try:
            yield calls
        finally:
            ended.set()
        for one in running:
            one.result(20)


def request() -> pb.ModelInferRequest:
    """Return the good row."""
    made = pb.ModelInferRequest(model_name=MODEL)
    for name, value in GOOD_ROW.items():
        text = isinstance(value, str)
        tensor = made.inputs.add(name=name, datatype="BYTES" if text else "FP64", shape=[1])
        if text:
            tensor.contents.bytes_contents.append(value.encode())
        else:
            tensor.contents.fp64_contents.append(value)
    return made


INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_rolling_restart_of_two_replicas_fails_no_call(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    with (
        processes(platform, bundles, tmp_path, 2, drain_s=DRAIN_S) as replicas,
        # Of it the readiness of each is known, as a load balancer knows it.
        open_loop([one.url for one in replicas], good_requests(), rate=10) as load,
    ):
        eventually(lambda: len(load.rotation) == 2)
        with calling(replicas, load) as calls:
            for replica, other in zip(replicas, reversed(replicas), strict=True):
                calls.wait_for(20, by=replica.url)
                assert replica.terminate() == 0
                calls.wait_for(50, by=other.url)
                replica.start()
                calls.starts[replica.url] += 1
                replica.wait_ready()
                eventually(lambda url=replica.url: url in load.rotation)
                calls.wait_for(20, by=replica.url)

    assert calls.failed == []
    assert load.failures == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kill_9_of_the_only_server_fails_requests_only_while_it_is_gone(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    with (
        processes(platform, bundles, tmp_path) as (server,),
        open_loop([server.url], good_requests(), rate=RATE) as load,
    ):
        load.wait_for(100)
        server.kill()
        down_from = len(load.outcomes)
        server.start()
        server.wait_ready()
        eventually(lambda: server.url in load.rotation)
        down_to = len(load.outcomes)
        load.wait_for(100)
        eventually(lambda: prediction_ids(load) <= logged(platform), 30)

    assert failures_between(load, 0, down_from, killed=server) == []
    assert failures_between(load, down_to, len(load.outcomes), killed=server) == []
    # What was answered is in the log, once: it was written before the answer left.
    assert len(prediction_ids(load)) == load.answered


def failures_between(load: Load, first: int, last: int, *, killed: InferenceProcess) -> list[str]:
    """Return what failed for another reason than that nobody was there."""
    gone = ("no target is ready", "ConnectError", "ReadError", "RemoteProtocolError", "WriteError")
    return [
        one.failure
        for one in load.outcomes[first:last]
        if one.failure and not (one.target in ("", killed.url) and one.failure.startswith(gone))
    ]


def logged(platform: Platform) -> set[str]:
    """Return the ids of the rows that drift has."""
    return {event["id"] for event in platform.drift.role("champion")}
