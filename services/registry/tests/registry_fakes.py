"""What the registry's tests stand on: a small MLflow in memory, bundles, and evidence that a test decides."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx
from modelyard_common.db import Database
from modelyard_common.errors import NotFound, Unavailable
from modelyard_common.testing import FakeClock, running
from modelyard_contracts.bundle_v1 import (
    MANIFEST_FILE,
    BundleFile,
    BundleManifest,
    Column,
    Lineage,
    Signature,
    manifest_digest,
)
from modelyard_registry.domain.signals import Comparison, Side
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.usecases.advance_rollouts import AdvanceRollouts
from modelyard_registry.usecases.mirror_models import MirrorModels
from modelyard_registry.wiring import build

SPEC: dict[str, Any] = {
    "task": "classification",
    "data": {"source": {"uri": "dataset://sha256:" + "0" * 64}, "target": "up", "timestamp": "at"},
    "train": {"recipe": {"estimator": "logistic_regression"}},
    "gate": [
        {"metric": "accuracy", "min": 0.6},
        {"metric": "accuracy", "against": "champion", "improveBy": 0.01, "on": {"fresh": {"rows": 100, "minRows": 50}}},
    ],
    "rollout": {
        "steps": [{"shadow": True, "minRequests": 20}, {"weight": 25, "minRequests": 10}],
        "abortIf": [{"signal": "errorRatio", "above": 0.1, "minResponses": 5}],
        "contenders": 2,
    },
}


def document(name: str = "m", **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ManagedModel",
        "metadata": {"name": name},
        "spec": {**SPEC, **changes},
    }


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class FakeBundle:
    digest: str
    files: dict[str, bytes]


def make_bundle(
    model: str = "m", weight: str = "w1", until: str = "2026-01-01T00:00:00Z", files: dict[str, bytes] | None = None
) -> FakeBundle:
    content = files or {"MLmodel": b"flavors: {}", "model.onnx": weight.encode(), "data/baseline.json": b"{}"}
    manifest = BundleManifest(
        model=model,
        created="2026-01-02T00:00:00Z",
        signature=Signature(task="classification", features=(Column(name="x", type="number"),), target="up"),
        runtimes=("onnx",),
        lineage=Lineage(run="run", dataset=sha(b"data"), estimator="logistic_regression", data_until=until),
        files=tuple(BundleFile(path=path, digest=sha(raw), size_bytes=len(raw)) for path, raw in content.items()),
    )
    raw = json.dumps(manifest.model_dump(mode="json"), indent=1).encode()
    return FakeBundle(str(manifest_digest(manifest)), {**content, MANIFEST_FILE: raw})


def evaluation(
    kind: str = "fresh", rows: int = 100, insufficient: str | None = None, **scores: float
) -> dict[str, Any]:
    """Return an Evaluation; scores: ``candidate_sha256hex=0.7`` are given as digest texts without the prefix."""
    return {
        "run": "run",
        "kind": kind,
        "rows": rows,
        "rows_digest": sha(b"rows"),
        "insufficient": insufficient,
        "scores": [
            {
                "digest": "sha256:" + who.partition("_")[2],
                "role": who.partition("_")[0],
                "metrics": {"accuracy": {"value": value, "low": value, "high": value}},
            }
            for who, value in scores.items()
        ],
    }


def role(name: str, bundle: FakeBundle) -> str:
    return f"{name}_{bundle.digest.removeprefix('sha256:')}"


@dataclass
class FakeMlflow:
    """As much of MLflow's REST API as the registry uses; ``down`` refuses connections."""

    down: bool = False
    runs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    lose_next_create: bool = False
    """The next version is created, and the answer is lost on its way."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_run(self, bundle: FakeBundle, path: str = "bundle") -> str:
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = {f"{path}/{name}": content for name, content in bundle.files.items()}
        return run_id

    def client(self) -> httpx.Client:
        return httpx.Client(base_url="http://mlflow.test", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        return as_streamed(self._handle(request))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            if self.down:
                raise httpx.ConnectError("refused", request=request)
            path = unquote(request.url.path)
            self.calls.append(f"{request.method} {path}")
            query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
            if path == "/health":
                return httpx.Response(200, text="OK")
            if path.startswith("/api/2.0/mlflow-artifacts/artifacts"):
                return self._artifacts(path.removeprefix("/api/2.0/mlflow-artifacts/artifacts").strip("/"), query)
            body = json.loads(request.content) if request.content else query
            return self._registry(request.method, path.removeprefix("/api/2.0/mlflow/"), body, request)

    def _artifacts(self, path: str, query: dict[str, str]) -> httpx.Response:
        run_id, _, below = (path or query["path"]).removeprefix("1/").partition("/artifacts/")
        files = self.runs.get(run_id, {})
        if path:
            return (
                httpx.Response(200, content=files[below]) if below in files else _refuse(404, "RESOURCE_DOES_NOT_EXIST")
            )
        names: dict[str, bool] = {}
        for name in files:
            if name.startswith(f"{below}/"):
                head, slash, _ = name.removeprefix(f"{below}/").partition("/")
                names[head] = bool(slash)
        return httpx.Response(200, json={"files": [{"path": name, "is_dir": folder} for name, folder in names.items()]})

    def _registry(self, method: str, path: str, body: dict[str, Any], request: httpx.Request) -> httpx.Response:
        name = body.get("name", "")
        model = self.models.get(name)
        if path == "runs/get":
            known = body["run_id"] in self.runs
            info = {"run": {"info": {"artifact_uri": f"mlflow-artifacts:/1/{body['run_id']}/artifacts"}}}
            return httpx.Response(200, json=info) if known else _refuse(404, "RESOURCE_DOES_NOT_EXIST")
        if path == "registered-models/create":
            if model:
                return _refuse(400, "RESOURCE_ALREADY_EXISTS")
            self.models[name] = {"versions": [], "aliases": {}}
            return httpx.Response(200, json={})
        if path == "model-versions/search":
            digest = body["filter"].rpartition("= '")[2].rstrip("'")
            name = body["filter"].partition("name = '")[2].partition("'")[0]
            found = [
                v
                for v in self.models.get(name, {"versions": []})["versions"]
                if v["tags"]["modelyard.digest"] == digest
            ]
            return httpx.Response(200, json={"model_versions": found})
        if model is None:
            return _refuse(404, "RESOURCE_DOES_NOT_EXIST")
        if path == "registered-models/get":
            aliases = [{"alias": alias, "version": version} for alias, version in model["aliases"].items()]
            return httpx.Response(200, json={"registered_model": {"name": name, "aliases": aliases}})
        if path == "registered-models/delete":
            del self.models[name]
        elif path == "registered-models/alias" and method == "POST":
            model["aliases"][body["alias"]] = body["version"]
        elif path == "registered-models/alias":
            del model["aliases"][body["alias"]]
        elif path == "model-versions/set-tag":
            model["versions"][int(body["version"]) - 1]["tags"][body["key"]] = body["value"]
        elif path == "model-versions/create":
            tags = {tag["key"]: tag["value"] for tag in body["tags"]}
            version = {"version": str(len(model["versions"]) + 1), "source": body["source"], "tags": tags}
            model["versions"].append(version)
            if self.lose_next_create:
                self.lose_next_create = False
                raise httpx.ReadTimeout("lost", request=request)
            return httpx.Response(200, json={"model_version": version})
        return httpx.Response(200, json={})


def as_streamed(response: httpx.Response) -> httpx.Response:
    """Return the response as it comes off a wire: its body is still to be read."""
    return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))


def _refuse(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error_code": code, "message": f"{code} says the fake"})


@dataclass
class FakeEvidence:
    """Evidence as a test wants it; by default what drift says of a revision without traffic."""

    away: str = ""
    unknown: bool = False
    sides: dict[int, Comparison] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def good(self, revision: int, responses: int = 1000, errors: int = 0) -> None:
        self.sides[revision] = Comparison(
            revision, champion=Side("old", 1000, 0, 1.0, 2.0), candidate=Side("new", responses, errors, 1.0, 2.0)
        )

    def comparison(self, model: str, revision: int) -> Comparison:
        self.asked.append(revision)
        if self.away:
            raise Unavailable(self.away)
        if self.unknown:
            raise NotFound("no such model")
        return self.sides.get(revision, Comparison(revision))


@dataclass
class Platform:
    """A registry with its surroundings, whose background work happens when a test says so."""

    http: httpx.Client
    mlflow: FakeMlflow
    evidence: FakeEvidence
    clock: FakeClock
    advance: AdvanceRollouts
    mirror: MirrorModels
    show_metrics: Callable[[], None]
    settings: RegistrySettings

    def apply(self, name: str = "m", **changes: Any) -> dict[str, Any]:
        answer = self.http.put(f"/v1/models/{name}", json=document(name, **changes))
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def register(self, bundle: FakeBundle, judged: dict[str, Any] | None = None, name: str = "m") -> dict[str, Any]:
        body = {"digest": bundle.digest, "mlflow_run_id": self.mlflow.add_run(bundle), "run": "r", "evaluation": judged}
        answer = self.http.post(f"/v1/models/{name}/versions", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def champion(self, weight: str = "w1") -> FakeBundle:
        """Make a first champion."""
        bundle = make_bundle(weight=weight)
        view = self.register(bundle, evaluation("test", **{role("candidate", bundle): 0.7}))
        assert view["state"] == "champion", view
        return bundle

    def better(self, champion: FakeBundle, weight: str = "w2", by: float = 0.05, **others: float) -> FakeBundle:
        """Register a version that beats the champion on fresh rows."""
        bundle = make_bundle(weight=weight)
        scores = {role("candidate", bundle): 0.7 + by, role("champion", champion): 0.7, **others}
        self.register(bundle, evaluation(**scores))
        return bundle

    def model(self, name: str = "m") -> dict[str, Any]:
        return self.http.get(f"/v1/models/{name}").json()

    def routing(self, name: str = "m") -> dict[str, Any]:
        return self.http.get(f"/v1/models/{name}/routing").json()

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.http.get("/v1/ledger?limit=500").json()["items"]]

    def roll_out(self) -> None:
        """Give every step good evidence until the rollout is over."""
        while (self.model()["rollout"] or {}).get("state") == "running":
            self.evidence.good(self.routing()["revision"])
            assert self.advance() == 1


@contextmanager
def serving(
    database: Database, folder: Path, mlflow: FakeMlflow, evidence: FakeEvidence, **changes: Any
) -> Iterator[Platform]:
    """Serve a registry on a real socket; its background work is left to the test."""
    settings = RegistrySettings(data_dir=folder, watch_poll_s=0.02, watch_heartbeat_s=0.1, drain_s=0, **changes)
    clock = FakeClock()
    app = build(settings, database, clock=clock, http=mlflow.client(), evidence=evidence, background=False)
    with running(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
        yield Platform(
            http=http,
            mlflow=mlflow,
            evidence=evidence,
            clock=clock,
            advance=app.state.advance,
            mirror=app.state.mirror,
            show_metrics=app.state.show,
            settings=settings,
        )
