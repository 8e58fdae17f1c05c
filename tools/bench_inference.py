"""Inference of one row over HTTP, beside the bound of its server and beside what people write first.

The same V2 body goes to three processes: an ASGI application that sends it back, the inference service as it is
deployed (verified bundle, ids, log of payloads sent to a drift that takes everything), and FastAPI with the same
scikit-learn pipeline. All servers get one core and the load another. Rounds take turns, so that a slow moment of
the machine meets all of them; compare the ratios, not the numbers of different machines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
from bench.apps import BUNDLE, read_outputs
from bench.load import Sample, measure
from bench.servers import Cores, Server, free_port, running, uvicorn_argv
from bench.tables import table
from modelyard_bundle.packaging import pack
from modelyard_bundle.runtimes.sklearn import as_frame
from modelyard_contracts.bundle_v1 import Column, Lineage, Signature
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL = "bench"
FEATURES = 8
"""As many as a table of the usual size has; more make JSON the larger part for everybody."""
WARM_S = 0.5


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=3, help="turns that every server gets")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    given = parser.parse_args(argv)
    cores = Cores.split()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as name:
        folder = Path(name)
        body = make_bundle(folder / "bundle")
        others = surroundings_of(folder)
        servers = servers_of(folder, others.port)
        around = running([others], cores and Cores(cores.load, cores.load), folder)
        with around, running(servers, cores, folder) as cpu_s:
            if cores is not None:
                os.sched_setaffinity(0, cores.load)
            check_same_answers(servers, body)
            for connections in given.connections:
                samples = take_turns(servers, cpu_s, body, connections, given.rounds, given.seconds)
                show(connections, samples)
    where = "servers and load on one core each" if cores else "servers and load share their cores"
    print(f"\n{given.rounds} rounds of {given.seconds:g} s; {where}.")
    print("Rates: the median of rounds. Latencies: of all rounds. CPU: of the server, a request.")


def make_bundle(folder: Path) -> bytes:
    """Pack a logistic regression of real rows; return the body that asks for one row."""
    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names[:FEATURES]]
    sample = {name: data.data[:, place].astype(np.float32) for place, name in enumerate(names)}
    signature = Signature(
        task="classification",
        features=tuple(Column(name=name, type="number") for name in names),
        target="benign",
        classes=(0, 1),
        positive_class=1,
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(as_frame(signature, sample), data.target)
    pack(
        folder,
        model=MODEL,
        estimator=model,
        signature=signature,
        sample=sample,
        lineage=Lineage(run="bench", dataset="sha256:" + "0" * 64, estimator="logistic_regression"),
        baseline_json="{}",
        metrics=(),
        created=datetime.now(UTC),
    )
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [float(sample[name][7])]} for name in names]
    return json.dumps({"inputs": inputs}).encode()


def surroundings_of(folder: Path) -> Server:
    """Return the registry and the drift that the inference service talks to."""
    port = free_port()
    argv = [*uvicorn_argv("surroundings", port), "--factory"]
    return Server("surroundings", argv, port, "/v1/events", "/v1/models", {BUNDLE: str(folder / "bundle")})


def servers_of(folder: Path, surroundings_port: int) -> list[Server]:
    """Return the servers that are compared; the first is what the others are measured against."""
    bundle = {BUNDLE: str(folder / "bundle")}
    around = f"http://127.0.0.1:{surroundings_port}"
    echo, ours, plain = free_port(), free_port(), free_port()
    settings = {
        "MODELYARD_INFERENCE_PORT": str(ours),
        "MODELYARD_INFERENCE_GRPC_PORT": "0",
        "MODELYARD_INFERENCE_REGISTRY_URL": around,
        "MODELYARD_INFERENCE_DRIFT_URL": around,
        "MODELYARD_INFERENCE_DATA_DIR": str(folder / "data"),
        "MODELYARD_INFERENCE_DRAIN_S": "0",
    }
    infer = f"/v2/models/{MODEL}/infer"
    return [
        Server("empty ASGI echo", uvicorn_argv("echo", echo), echo, infer, "/"),
        Server(
            "Modelyard",
            [sys.executable, "-m", "modelyard_inference.main"],
            ours,
            infer,
            f"/v2/models/{MODEL}/ready",
            settings,
        ),
        Server(
            "FastAPI + scikit-learn", [*uvicorn_argv("plain", plain), "--factory"], plain, "/infer", "/ready", bundle
        ),
    ]


def check_same_answers(servers: Sequence[Server], body: bytes) -> None:
    """Raise RuntimeError when two servers answer differently: they would not do the same work."""
    answers = {}
    for server in servers[1:]:
        answer = httpx.post(server.url, content=body, headers={"content-type": "application/json"}, trust_env=False)
        answers[server.name] = read_outputs(answer.raise_for_status().content)
    first, *rest = answers.values()
    for other in rest:
        same = first["predict"] == other["predict"]
        if not same or not np.allclose(first["predict_proba"], other["predict_proba"], atol=1e-4):
            raise RuntimeError(f"the servers answer differently: {answers}")


def take_turns(
    servers: Sequence[Server],
    cpu_s: Mapping[str, Callable[[], float]],
    body: bytes,
    connections: int,
    rounds: int,
    seconds: float,
) -> dict[str, list[Sample]]:
    """Return the samples of each server, one a round."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    for server in servers:
        measure(server.url, body, connections=connections, seconds=min(WARM_S, seconds))
    for _ in range(rounds):
        for server in servers:
            before = cpu_s[server.name]()
            sample = measure(server.url, body, connections=connections, seconds=seconds)
            samples[server.name].append(replace(sample, cpu_s=cpu_s[server.name]() - before))
    return samples


def show(connections: int, samples: dict[str, list[Sample]]) -> None:
    """Print one table; ratios are to the first server."""
    rates = {name: statistics.median(sample.rate for sample in taken) for name, taken in samples.items()}
    whole = {name: sum(taken[1:], taken[0]) for name, taken in samples.items()}
    bound = next(iter(samples))
    rows = []
    for name, sample in whole.items():
        base = whole[bound]
        p50, p99 = sample.percentile(50), sample.percentile(99)
        ratios = (
            rates[name] / rates[bound],
            p50 / base.percentile(50),
            p99 / base.percentile(99),
            sample.cpu_us / base.cpu_us,
        )
        measured = (f"{rates[name]:.0f}", f"{p50:.2f}", f"{p99:.2f}", f"{sample.cpu_us:.0f}")
        rows.append([name, *measured, *(f"{ratio:.2f}" for ratio in ratios)])
    print(f"\n{connections} connection{'' if connections == 1 else 's'}; ratios to the {bound}")
    print(table(["server", "requests/s", "p50 ms", "p99 ms", "CPU us", "rate", "p50", "p99", "CPU"], rows))


if __name__ == "__main__":
    main()
