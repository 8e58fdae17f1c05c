"""`:explain` over real HTTP: values that are right, the method named, bounds, and nothing of it in log or counts."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from inference_fakes import (
    GOOD_ROW,
    NOW,
    SIGNATURE,
    FakeRegistry,
    Platform,
    a_platform,
    a_server,
    digest_of,
    eventually,
    make_bundle,
)
from modelyard_bundle.packaging import Packed
from modelyard_bundle.probe import probe_rows, write_probe
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.runtimes.sklearn import SKOPS_FILE, load_estimator
from modelyard_common.clock import SystemClock
from modelyard_common.errors import Overloaded
from modelyard_contracts.bundle_v1 import BundleManifest, Column, Lineage, Signature
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.domain.binding import Binder
from modelyard_inference.domain.requests import Late, Rows
from modelyard_inference.domain.routing import Routing, Version
from modelyard_inference.usecases.explain import Explain, ExplainLimits
from modelyard_inference.usecases.serving import LoadedVersion, ServedModels, Serving
from prometheus_client.parser import text_string_to_metric_families

EXPLAIN, PREDICT = "/v1/models/power:explain", "/v1/models/power:predict"
NAMES = [column.name for column in SIGNATURE.features]
ROWS = [GOOD_ROW, {"load": -1.4, "price": None, "day": "sun"}, {"load": 0.1, "price": 2.0, "day": "tue"}]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]
) -> Iterator[tuple[Platform, httpx.Client]]:
    with a_platform(tmp_path_factory.mktemp("explain")) as platform, a_server(platform, bundles) as http:
        yield platform, http


@pytest.fixture
def http(served: tuple[Platform, httpx.Client]) -> httpx.Client:
    return served[1]


def explained(http: httpx.Client, rows: list[dict[str, Any]], path: str = EXPLAIN) -> dict[str, Any]:
    found: dict[str, Any] = http.post(path, json={"instances": rows}).raise_for_status().json()
    return found


def chances(http: httpx.Client, rows: list[dict[str, Any]]) -> list[float]:
    """Return the probability of class 1, by another protocol."""
    from modelyard_client.inference import tensors

    answer = http.post("/v2/models/power/infer", json={"inputs": tensors(rows)}).raise_for_status().json()
    return list(answer["outputs"][1]["data"][1::2])


def test_a_forest_is_explained_exactly(http: httpx.Client, bundles: tuple[Packed, Packed]) -> None:
    """Recomputed from what the server predicts for every row in between, order by order."""
    found = explained(http, ROWS)

    background = probe_rows(bundles[0].folder)
    subsets = [set(some) for size in range(4) for some in itertools.combinations(NAMES, size)]
    row = ROWS[0]
    between = [{n: (row if n in some else other)[n] for n in NAMES} for some in subsets for other in background]
    asked = chances(http, between)
    worth = {
        frozenset(some): float(np.mean(asked[at * len(background) : (at + 1) * len(background)]))
        for at, some in enumerate(subsets)
    }
    orders = list(itertools.permutations(NAMES))
    for name in NAMES:
        steps = [
            worth[frozenset(order[: order.index(name) + 1])] - worth[frozenset(order[: order.index(name)])]
            for order in orders
        ]
        assert found["explanations"][0]["contributions"][name] == pytest.approx(np.mean(steps), abs=1e-5)
    assert (found["method"], found["space"]) == ("exact", "probability")
    assert found["background"] == {"source": "probe set", "rows": len(background)}
    assert found["evaluations"] == len(ROWS) * 8 * len(background)
    assert found["digest"] == str(bundles[0].digest)


def test_contributions_lead_from_the_average_to_the_answer(http: httpx.Client) -> None:
    found = explained(http, ROWS)

    predictions = http.post(PREDICT, json={"instances": ROWS}).json()["predictions"]
    for one, prediction, chance in zip(found["explanations"], predictions, chances(http, ROWS), strict=True):
        assert (one["prediction"], one["label"]) == (prediction, 1)
        assert one["value"] == pytest.approx(chance, abs=1e-6)
        assert one["base_value"] + sum(one["contributions"].values()) == pytest.approx(one["value"], abs=1e-6)
        assert one["additivity_error"] == pytest.approx(0, abs=1e-6)
        assert one["standard_errors"] is None


def test_a_linear_model_gives_what_its_coefficients_say(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    bundle = make_bundle(tmp_path / "linear", seed=1, estimator=LogisticRegression())
    with a_platform(tmp_path / "data") as platform, a_server(platform, (bundle,)) as http:
        found = explained(http, [GOOD_ROW])

    fitted = load_estimator(bundle.folder / SKOPS_FILE).named_steps["model"]
    known = probe_rows(bundle.folder)
    [one] = found["explanations"]
    assert (found["method"], found["space"]) == ("linear", "log-odds")
    for place, name in enumerate(("load", "price")):
        usual = np.mean([row[name] for row in known])
        expected = fitted.coef_[0][place] * (GOOD_ROW[name] - usual)
        assert one["contributions"][name] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert abs(one["additivity_error"]) < 1e-3


def test_what_cannot_be_had_exactly_is_estimated_and_says_how_well(tmp_path: Path) -> None:
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier((8,), solver="lbfgs", max_iter=5000, random_state=0)
    bundle = make_bundle(tmp_path / "net", seed=1, estimator=net)
    rows = [ROWS[0], ROWS[2]]
    with a_platform(tmp_path / "large") as platform, a_server(platform, (bundle,)) as large:
        truth = explained(large, rows)["explanations"]
    with a_platform(tmp_path / "small") as platform, a_server(platform, (bundle,), explain_evaluations=1000) as small:
        found = explained(small, rows)
        again = explained(small, rows)

    assert found["method"] == "permutation"
    assert found["evaluations"] <= 1000
    assert found == again, "the same request gets the same answer"
    for one, exact in zip(found["explanations"], truth, strict=True):
        for name in NAMES:
            error = one["standard_errors"][name]
            assert 0 <= error < 0.2
            assert one["contributions"][name] == pytest.approx(exact["contributions"][name], abs=4 * error + 1e-6)


@pytest.mark.parametrize("named", ["versions/2", "versions/@candidate", "versions/digest", "labels/candidate"])
def test_a_version_is_explained_by_number_digest_alias_and_label(
    platform: Platform, bundles: tuple[Packed, Packed], named: str
) -> None:
    champion, candidate = (str(bundle.digest) for bundle in bundles)
    platform.registry.add(*bundles)
    platform.registry.route("power", champion, candidate, weight=100)
    with platform.inference() as url, httpx.Client(base_url=url, trust_env=False) as http:
        eventually(lambda: http.get("/v2/models/power/versions/2/ready").status_code == 200)
        found = explained(http, [GOOD_ROW], f"/v1/models/power/{named.replace('digest', candidate)}:explain")
        plain = explained(http, [GOOD_ROW])

    assert (found["digest"], found["model_version"]) == (candidate, "2")
    assert plain["digest"] == champion, "an explanation takes no part in a rollout"


def counted(http: httpx.Client) -> dict[str, float]:
    """Return what the server counts, by metric and outcome, of the model."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples if sample.labels.get("model") == "power")
    counts: Counter[str] = Counter()
    for sample in samples:
        counts[f"{sample.name} {sample.labels.get('outcome', '')}"] += sample.value
    return dict(counts)


def test_what_is_asked_for_an_explanation_is_no_prediction(served: tuple[Platform, httpx.Client]) -> None:
    platform, http = served
    http.post(PREDICT, json={"instances": [GOOD_ROW]}).raise_for_status()
    eventually(lambda: platform.drift.events)
    before = counted(http)

    evaluations = explained(http, [GOOD_ROW])["evaluations"]
    told = http.post(PREDICT, json={"instances": [GOOD_ROW]}).headers["modelyard-prediction-id"]

    eventually(lambda: any(one == f"{told}/0" for one, _ in platform.drift.events))
    grown = {name: value - before.get(name, 0.0) for name, value in counted(http).items()}
    assert grown["modelyard_inference_rows_total "] == 1
    assert grown["modelyard_inference_requests_total answered"] == 1
    assert grown["modelyard_inference_explanations_total exact"] == 1
    assert grown["modelyard_inference_explain_evaluations_total "] == evaluations
    assert len(platform.drift.batches) <= len(platform.drift.events)


BAD = {
    "not JSON": (b"{", 400, "is not JSON"),
    "no rows": (b'{"instances": []}', 400, "has no rows"),
    "a wrong value": (
        json.dumps({"instances": [GOOD_ROW | {"load": "x"}]}).encode(),
        400,
        "[0].load: must be a number",
    ),
    "a label of predictions": (
        json.dumps({"instances": [GOOD_ROW], "parameters": {"routing_key": "k"}}).encode(),
        400,
        "'routing_key' is for predictions",
    ),
    "too many rows": (json.dumps({"instances": [GOOD_ROW] * 17}).encode(), 413, "at most 16 are explained"),
}


@pytest.mark.parametrize(("body", "status", "sentence"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named(http: httpx.Client, body: bytes, status: int, sentence: str) -> None:
    response = http.post(EXPLAIN, content=body)

    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert sentence in response.json()["error"]


@pytest.mark.parametrize("path", ["nobody", "power/versions/9", "power/labels/candidate", "power/labels/1"])
def test_what_is_not_there_is_not_found(http: httpx.Client, path: str) -> None:
    response = http.post(f"/v1/models/{path}:explain", json={"instances": [GOOD_ROW]})

    assert (response.status_code, list(response.json())) == (404, ["error"])


def test_columns_gzip_and_a_slash_at_the_end_are_taken_as_elsewhere(http: httpx.Client) -> None:
    import gzip

    body = gzip.compress(json.dumps({"inputs": {name: [value] for name, value in GOOD_ROW.items()}}).encode())

    response = http.post(f"{EXPLAIN}/", content=body, headers={"content-encoding": "gzip"})

    assert response.raise_for_status().json() == explained(http, [GOOD_ROW])


def test_nobody_waits_longer_than_was_said(tmp_path: Path, bundles: tuple[Packed, Packed]) -> None:
    with a_platform(tmp_path) as platform, a_server(platform, bundles, explain_evaluations=10**9) as http:
        late = http.post(EXPLAIN, json={"instances": ROWS}, headers={"modelyard-timeout-ms": "1"})
        fine = http.post(PREDICT, json={"instances": ROWS})

    assert (late.status_code, late.headers["retry-after"]) == (504, "1")
    assert fine.status_code == 200


def test_a_registry_is_not_asked_for_what_is_here(tmp_path: Path, bundles: tuple[Packed, Packed]) -> None:
    with a_platform(tmp_path) as platform, a_server(platform, bundles) as http:
        registry: FakeRegistry = platform.registry
        registry.folders.clear()
        found = explained(http, [GOOD_ROW])

    assert found["method"] == "exact"


@dataclass
class Watched:
    """A runtime that adds a row up, and knows how many rows it was asked at a time; the first call may be held."""

    hold: threading.Event | None = None
    name: str = "stub"
    blocking: bool = False
    sizes: list[int] = field(default_factory=list)
    scores: bool = False

    def predict(self, columns: Any) -> Predicted:
        self.sizes.append(len(next(iter(columns.values()))))
        if self.hold is not None:
            self.hold.wait(20)
        total = np.sum([np.tanh(values) for values in columns.values()], axis=0).astype(np.float64)
        if self.scores:
            return Predicted((total > 1).astype(np.int64), (total * total).astype(np.float32).reshape(-1, 1))
        return Predicted(total * total, None)


class Shelf:
    """Gives one folder for every bundle."""

    def __init__(self, folder: Path, signature: Signature) -> None:
        names = [column.name for column in signature.features]
        rows = [{name: float(place + row) / 64 for place, name in enumerate(names)} for row in range(64)]
        write_probe(folder, rows, Predicted(np.zeros(64), None))
        self.folder = folder
        self.manifest = BundleManifest(
            model="power",
            created=NOW,
            signature=signature,
            runtimes=("onnx",),
            lineage=Lineage(run="r", dataset=digest_of("d"), estimator="random_forest"),
            files=(),
        )

    def open(self, model: str, digest: str) -> tuple[Path, BundleManifest]:
        return self.folder, self.manifest


SUM = Signature(task="regression", features=tuple(Column(name=f"x{n}", type="number") for n in range(6)), target="y")
RECORDER = type("Recorder", (), {"explained": lambda *_: None, "not_explained": lambda *_: None})


def engine(folder: Path, runtime: Watched, *, depth: int = 8, signature: Signature = SUM) -> tuple[Explain, ThreadLane]:
    served, lane = ServedModels(), ThreadLane("explaining", threads=1, depth=depth, niceness=5)
    served.known()
    version = Version(1, digest_of("a"))
    served.serve(Serving(Routing("power", 1, version), LoadedVersion(version, signature, runtime, Binder(signature))))
    limits = ExplainLimits(rows=16, evaluations=100_000)
    explain = Explain(
        served, Shelf(folder, signature), lane, RECORDER(), SystemClock(), limits, lambda folder, signature: None
    )
    return explain, lane


ONE_ROW = Rows(1, {f"x{n}": [float(n)] for n in range(6)})


def test_the_model_is_asked_in_pieces_so_that_predictions_get_in_between(tmp_path: Path) -> None:
    runtime = Watched()
    explain, lane = engine(tmp_path, runtime)

    found = asyncio.run(explain("power", None, ONE_ROW, 20.0))
    lane.close()

    assert (found.method, found.space, found.evaluations) == ("exact", "value", 64 * 64)
    assert max(runtime.sizes) <= 2048
    assert len(runtime.sizes) > 2
    assert found.rows[0].additivity_error == pytest.approx(0, abs=1e-9)


def test_of_an_anomaly_detector_the_score_is_explained(tmp_path: Path) -> None:
    detector = SUM.model_copy(update={"task": "anomaly"})
    explain, lane = engine(tmp_path, Watched(scores=True), signature=detector)

    found = asyncio.run(explain("power", None, ONE_ROW, 20.0))
    lane.close()

    [one] = found.rows
    expected = float(np.sum(np.tanh(np.arange(6, dtype=np.float32)))) ** 2
    assert (found.space, one.prediction, one.label) == ("score", 1, None)
    assert one.answer == pytest.approx(expected, rel=1e-5)
    assert one.base + sum(one.contributions.values()) == pytest.approx(one.answer, rel=1e-5)


def test_what_waits_for_the_thread_is_bounded_and_the_loop_is_free_meanwhile(tmp_path: Path) -> None:
    runtime = Watched(hold=threading.Event())
    explain, lane = engine(tmp_path, runtime, depth=1)
    assert runtime.hold is not None

    async def play() -> tuple[Any, Any]:
        first = asyncio.create_task(explain("power", None, ONE_ROW, 20.0))
        await asyncio.to_thread(eventually, lambda: runtime.sizes)
        second = asyncio.create_task(explain("power", None, ONE_ROW, 20.0))
        await asyncio.to_thread(eventually, lambda: lane.waiting)
        with pytest.raises(Overloaded):
            await explain("power", None, ONE_ROW, 20.0)
        assert runtime.hold is not None
        runtime.hold.set()
        return await first, await second

    first, second = asyncio.run(play())
    lane.close()

    assert first.rows == second.rows


def test_an_explanation_that_nobody_waits_for_any_more_stops_asking(tmp_path: Path) -> None:
    runtime = Watched(hold=threading.Event())
    explain, lane = engine(tmp_path, runtime)

    with pytest.raises(Late):
        asyncio.run(explain("power", None, ONE_ROW, 0.05))
    assert runtime.hold is not None
    runtime.hold.set()
    eventually(lambda: lane.lost == 0)
    lane.close()

    assert len(runtime.sizes) == 1, "it was late after the first call"
