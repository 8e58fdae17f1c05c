"""Real bundles of small models, fakes of registry and drift, a stub runtime: for the tests of inference."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from modelyard_bundle.packaging import Packed, pack
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Columns
from modelyard_common.testing import running
from modelyard_contracts.bundle_v1 import Column, Lineage, Signature
from modelyard_contracts.events_v1 import PredictionEvent
from modelyard_contracts.frames import payloads_in
from modelyard_contracts.pages import Page
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE
from modelyard_contracts.problem import PROBLEM_MEDIA_TYPE, FieldError, Problem
from modelyard_contracts.registry_v1 import CandidateRoute, ModelView, Route, RoutingTable, RuntimeReport, WatchEvent
from modelyard_inference.domain.binding import Binder
from modelyard_inference.domain.ports import Run
from modelyard_inference.domain.records import Block
from modelyard_inference.domain.routing import Version
from modelyard_inference.settings import InferenceSettings
from modelyard_inference.usecases.serving import LoadedVersion, ServedModels
from modelyard_inference.wiring import build

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

SIGNATURE = Signature(
    task="classification",
    features=(
        Column(name="load", type="number"),
        Column(name="price", type="number", required=False),
        Column(name="day", type="category"),
    ),
    target="up",
    classes=(0, 1),
    positive_class=1,
)
GOOD_ROW: dict[str, Any] = {"load": 0.7, "price": 0.2, "day": "mon"}


def digest_of(letter: str) -> str:
    """Return a digest made of one letter."""
    return "sha256:" + letter * 64


def _now(check: Callable[[], Any]) -> Any:
    """Return what a check finds; nothing where a process that is ending has cut the connection to it."""
    try:
        return check()
    except httpx.TransportError:
        return None


def eventually(check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Return the first true answer of check; other processes and threads need a moment."""
    deadline = time.monotonic() + timeout_s
    while not (found := _now(check)):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return found


@dataclass
class StubRuntime:
    """Answers what it is told to."""

    label: Any = 1
    chance: float = 0.8
    blocking: bool = False
    error: Exception | None = None
    hold: threading.Event | None = None
    takes_s: float = 0.0
    name: str = "stub"
    calls: int = 0

    def predict(self, columns: Columns) -> Predicted:
        """Answer, raise, or wait until it is let go."""
        self.calls += 1
        if self.hold is not None:
            self.hold.wait(20)
        time.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        rows = len(next(iter(columns.values())))
        chances = np.tile(np.array([1 - self.chance, self.chance], dtype=np.float32), (rows, 1))
        return Predicted(np.array([self.label] * rows), chances)


def stub_version(number: int, letter: str, runtime: StubRuntime, signature: Signature = SIGNATURE) -> LoadedVersion:
    """Return a loaded version around a stub."""
    return LoadedVersion(Version(number, digest_of(letter)), signature, runtime, Binder(signature))


class ListSink:
    """Keeps records in memory."""

    def __init__(self) -> None:
        self.records: list[PredictionEvent] = []

    def append(self, blocks: Iterable[Block]) -> None:
        """Keep them."""
        self.records.extend(PredictionEvent(**event) for block in blocks for event in block.events())

    def by_role(self, role: str) -> list[PredictionEvent]:
        """Return those of one role."""
        return [record for record in self.records if record.role == role]


@dataclass
class ListReports:
    """Keeps reports in memory."""

    told: list[tuple[str, str, int, str, str]] = field(default_factory=list)

    def tell(self, model: str, digest: str, revision: int, outcome: str, reason: str = "") -> None:
        """Keep one."""
        self.told.append((model, digest, revision, outcome, reason))

    def outcomes(self, digest: str) -> list[str]:
        """Return what was told of a version."""
        return [outcome for _, told, _, outcome, _ in self.told if told == digest]


class CountingObserver:
    """Counts in memory."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str, int]] = []
        self.failures: list[tuple[int, str, str]] = []
        self.batches: list[tuple[int, int]] = []
        self.parsed = 0
        self.dropped_rows = 0

    def answered(self, model: str, version: int, role: str, rows: int, took_s: float) -> None:
        self.answers.append((version, role, rows))

    def failed(self, model: str, version: int, role: str, reason: str) -> None:
        self.failures.append((version, role, reason))

    def ran(self, run: Run) -> None:
        self.batches.append((run.requests, run.rows))
        for role, (rows, _) in run.answers.items():
            self.answers += [(run.version, role, count) for count in rows]

    def took(self, model: str, parse_s: float, encode_s: float, times: int = 1) -> None:
        self.parsed += times

    def shadow_dropped(self, model: str, rows: int) -> None:
        self.dropped_rows += rows


def make_bundle(folder: Path, *, seed: int, model: str = "power", estimator: Any = None) -> Packed:
    """Pack a small pipeline that was fitted on rows of its own."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(seed)
    days = np.empty(300, dtype=object)
    days[:] = rng.choice(["mon", "tue", "sun"], 300)
    columns = {
        "load": rng.normal(size=300).astype(np.float32),
        "price": rng.normal(size=300).astype(np.float32),
        "day": days,
    }
    import pandas as pd

    frame = pd.DataFrame({name: columns[name] for name in ("load", "price", "day")})
    target = (columns["load"] * (1 if seed % 2 else -1) + rng.normal(0, 0.3, 300) > 0).astype(int)
    encode = ColumnTransformer(
        [
            ("numbers", "passthrough", [0, 1]),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [2]),
        ]
    )
    forest = HistGradientBoostingClassifier(max_iter=10, early_stopping=False)
    fitted = Pipeline([("encode", encode), ("model", forest if estimator is None else estimator)]).fit(frame, target)
    return pack(
        folder,
        model=model,
        estimator=fitted,
        signature=SIGNATURE,
        sample=columns,
        lineage=Lineage(
            run=f"run-{seed}",
            dataset=digest_of("d"),
            estimator="hist_gradient_boosting" if estimator is None else type(estimator).__name__,
        ),
        baseline_json="{}",
        metrics=(),
        created=NOW,
    )


def make_one_feature_bundle(folder: Path) -> Packed:
    """Pack a model that takes one number."""
    from sklearn.linear_model import LogisticRegression

    load = np.linspace(-1, 1, 100, dtype=np.float32)
    signature = SIGNATURE.model_copy(update={"features": SIGNATURE.features[:1]})
    return pack(
        folder,
        model="power",
        estimator=LogisticRegression().fit(load.reshape(-1, 1), (load > 0).astype(int)),
        signature=signature,
        sample={"load": load},
        lineage=Lineage(run="run-one", dataset=digest_of("d"), estimator="logistic_regression"),
        baseline_json="{}",
        metrics=(),
        created=NOW,
    )


class FakeRegistry:
    """A registry in memory, behind real HTTP: routing, watch, bundle files, reports."""

    def __init__(self) -> None:
        self.tables: dict[str, RoutingTable] = {}
        self.folders: dict[str, Path] = {}
        self.events: list[WatchEvent] = []
        self.reports: list[RuntimeReport] = []
        self.corrupt: set[str] = set()
        self.held: dict[str, threading.Event] = {}
        """Models whose routing is told once the event is set."""
        self.watchable = True
        self.ended = False

    def add(self, *bundles: Packed) -> None:
        for bundle in bundles:
            self.folders[str(bundle.digest)] = bundle.folder

    def route(
        self,
        model: str,
        champion: str | None,
        candidate: str | None = None,
        *,
        weight: int = 0,
        shadow: bool = False,
        **changes: Any,
    ) -> RoutingTable:
        """Publish a new revision; versions are numbered in the order of their bundles."""
        numbers = {digest: number for number, digest in enumerate(self.folders, 1)}
        last = self.tables.get(model)
        table = RoutingTable(
            model=model,
            revision=last.revision + 1 if last else 1,
            champion=Route(number=numbers.get(champion, 99), digest=champion) if champion else None,
            candidate=CandidateRoute(number=numbers.get(candidate, 99), digest=candidate, weight=weight, shadow=shadow)
            if candidate
            else None,
            **changes,
        )
        self.publish(table)
        return table

    def publish(self, table: RoutingTable) -> None:
        self.tables = self.tables | {table.model: table}
        self.events.append(WatchEvent(seq=len(self.events) + 1, kind="routing", model=table.model, routing=table))

    def outcomes(self, digest: object) -> list[str]:
        return [report.outcome for report in self.reports if report.digest == str(digest)]

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> Response:
            views = tuple(_view(table) for table in self.tables.values())
            return Response(Page[ModelView](items=views).model_dump_json(), media_type="application/json")

        @app.get("/v1/models/{model}/routing")
        def routing(model: str) -> Response:
            if model in self.held:
                self.held[model].wait(30)
            return Response(self.tables[model].model_dump_json(), media_type="application/json")

        @app.get("/v1/models/{model}/versions/{digest}/files/{path:path}")
        def file(model: str, digest: str, path: str) -> Response:
            content = (self.folders[digest] / path).read_bytes()
            if digest in self.corrupt and path != "modelyard.json":
                content += b" "
            return Response(content)

        @app.post("/v1/models/{model}/runtime-reports", status_code=204)
        def report(model: str, sent: RuntimeReport) -> None:
            self.reports.append(sent)

        @app.get("/v1/watch")
        async def watch(request: Request) -> Response:
            if not self.watchable:
                return Response(status_code=503)
            last = int(request.headers.get("last-event-id", 0))
            return StreamingResponse(self._stream(request, last), media_type="text/event-stream")

        return app

    async def _stream(self, request: Request, last: int) -> AsyncIterator[str]:
        yield ": hello\n\n"
        while not self.ended and not await request.is_disconnected():
            for event in self.events[last:]:
                last = event.seq
                yield f"event: {event.kind}\nid: {event.seq}\ndata: {event.model_dump_json()}\n\n"
            await asyncio.sleep(0.01)


def _view(table: RoutingTable) -> ModelView:
    return ModelView(
        name=table.model,
        generation=1,
        spec={},
        spec_digest=digest_of("a"),
        training_digest=digest_of("b"),
        created=NOW,
        updated=NOW,
        deleted=table.deleted,
        routing_revision=table.revision,
    )


def events_in(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a body of blocks, as their JSON would be read."""
    _, *blocks = payloads_in(body)
    sent = [msgspec.msgpack.decode(block, type=Block) for block in blocks]
    events: list[dict[str, Any]] = msgspec.to_builtins([event for block in sent for event in block.events()])
    return events


def refused(place: str) -> Response:
    """Return how drift refuses a field."""
    problem = Problem(title="wrong", status=422, errors=(FieldError(path=place, message="is wrong"),))
    return Response(problem.model_dump_json(), 422, media_type=PROBLEM_MEDIA_TYPE)


class FakeDrift:
    """Takes events behind real HTTP, and knows what it has seen."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.duplicates = 0
        self.batches: list[int] = []
        self.refuses: Callable[[dict[str, Any]], bool] = lambda event: False
        self.away = False
        self.knows_blocks = True
        self.media_types: list[str] = []

    def role(self, role: str) -> list[dict[str, Any]]:
        return [event for (_, told), event in self.events.items() if told == role]

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/events")
        async def take(request: Request) -> Response:
            if self.away:
                return Response(status_code=503)
            media_type, body = request.headers["content-type"], await request.body()
            self.media_types.append(media_type)
            if media_type != BLOCKS_MEDIA_TYPE:
                place, sent = "events[0]", json.loads(body)["events"]
            elif self.knows_blocks:
                place, sent = "blocks[0]", events_in(body)
            else:
                return refused("body")
            if any(self.refuses(event) for event in sent):
                return refused(place)
            self.batches.append(len(sent))
            new = {(event["id"], event["role"]): event for event in sent}
            known = len(new.keys() & self.events.keys()) + len(sent) - len(new)
            self.duplicates += known
            # Another one: tests walk through what there is while more comes.
            self.events = self.events | new
            body = {"accepted": len(sent) - known, "duplicates": known, "last_seq": len(self.events)}
            return Response(json.dumps(body), media_type="application/json")

        return app


@dataclass
class Platform:
    """Fakes of registry and drift on real sockets, and what inference needs to reach them."""

    registry: FakeRegistry
    drift: FakeDrift
    registry_url: str
    drift_url: str
    data_dir: Path
    grpc_target: str = ""
    served: ServedModels | None = None

    def settings(self, **changes: Any) -> InferenceSettings:
        given: dict[str, Any] = {
            "port": 0,
            "grpc_port": 0,
            "registry_url": self.registry_url,
            "drift_url": self.drift_url,
            "data_dir": self.data_dir,
            "poll_s": 0.1,
            "flush_s": 1.0,
            "drain_s": 0.0,
        }
        return InferenceSettings(**(given | changes))

    @contextmanager
    def inference(self, **changes: Any) -> Iterator[str]:
        """Serve inference; give its URL, and keep where it speaks gRPC."""
        app = build(self.settings(**changes))
        with running(app) as url:
            self.grpc_target = f"127.0.0.1:{app.state.companions[0].port}"
            self.served = app.state.inference.served
            yield url


@contextmanager
def a_platform(data_dir: Path) -> Iterator[Platform]:
    """Serve fakes of registry and drift."""
    registry, drift = FakeRegistry(), FakeDrift()
    with running(registry.app()) as registry_url, running(drift.app()) as drift_url:
        try:
            yield Platform(registry, drift, registry_url, drift_url, data_dir)
        finally:
            registry.ended = True


@contextmanager
def a_server(platform: Platform, bundles: tuple[Packed, ...], **changes: Any) -> Iterator[httpx.Client]:
    """Serve the first bundle as the champion of ``power``."""
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    with platform.inference(**changes) as url, httpx.Client(base_url=url, trust_env=False) as http:
        eventually(lambda: http.get("/v2/models/power/ready").status_code == 200)
        yield http
