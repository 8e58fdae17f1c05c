"""One prediction and one retrain, followed by their traces through every process of a live platform.

A receiver of OTLP takes the spans of all services and of the training job; the platform is stopped before anything is
looked at, so that what it still held has been exported.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_cli.embedded.layout import SERVICES, Layout
from modelyard_cli.embedded.platform import Platform
from modelyard_cli.manifests import read_manifests, with_uploaded_data
from modelyard_cli.session import Session
from modelyard_client import Modelyard
from modelyard_common.testing import free_port_base

from tests.acceptance.collector import Collector, Seen, collecting
from tests.telemetry.ecs import conflicts, misfits

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "traced"
MANIFEST = f"""
apiVersion: modelyard.dev/v1alpha1
kind: ManagedModel
metadata: {{name: {MODEL}}}
spec:
  task: regression
  data: {{source: {{uri: rows.csv}}, target: y}}
  train:
    recipe: {{estimator: ridge}}
    when: [{{drift: {{atLeast: high, cooldown: 1m, maxPerWeek: 7}}}}]
  rollout: {{steps: [{{weight: 50, minRequests: 5}}]}}
  monitor: {{window: {{rows: 100}}, drift: {{psi: 0.2, minRows: 50}}}}
"""
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
"""The client of the one prediction has spans of its own, which go elsewhere."""


@dataclass(frozen=True)
class Story:
    """What happened on the platform, and what the receiver has of it."""

    collector: Collector
    prediction: str
    """The id of the prediction that is followed."""
    logs: dict[str, list[dict[str, Any]]]

    def one(self, service: str, name: str, **attributes: Any) -> Seen:
        """Return the one span of a name with these attributes (dots written as two underscores)."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        found = [s for s in self.collector.named(service, name) if wanted.items() <= s.attributes.items()]
        assert len(found) == 1, (service, name, wanted, found)
        return found[0]


def wait_for(what: str, check: Callable[[], Any], platform: Platform, *, within_s: float = 150.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := check()):
        platform.watch()
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)
    return found


def rows(number: int, *, shift: float = 0.0) -> list[dict[str, float]]:
    chance = random.Random(number)
    return [{"a": chance.gauss(shift, 1), "b": chance.gauss(0, 1)} for _ in range(number)]


def write_model(folder: Path) -> None:
    lines = [f"{row['a']},{row['b']},{3 * row['a'] + row['b']}" for row in rows(400)]
    (folder / "rows.csv").write_text("\n".join(["a,b,y", *lines]))
    (folder / "model.yaml").write_text(MANIFEST)


def predict(url: str, row: dict[str, float], **headers: str) -> str:
    answer = httpx.post(
        f"{url}/models/{MODEL}/invocations",
        json={"dataframe_records": [row]},
        headers={"modelyard-routing-key": str(row["a"]), **headers},
        timeout=10,
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.headers["modelyard-prediction-id"]


def live_through(platform: Platform, client: Modelyard, folder: Path) -> str:
    """Train, predict, let the world change, and wait until what was learned from that is champion."""
    url = platform.layout.url("inference")
    write_model(folder)
    [(manifest, _)] = read_manifests(folder / "model.yaml")
    manifest, _ = with_uploaded_data(manifest, folder, client.training)
    client.registry.apply(manifest)
    wait_for("the first version is served", lambda: client.inference.ready(MODEL), platform)
    prediction = predict(url, rows(1)[0], traceparent=f"00-{TRACE}-{CALLER}-01")
    for row in rows(149, shift=4.0):
        predict(url, row)

    def second() -> bool:
        rollout = client.registry.model(MODEL).rollout
        if rollout is not None and rollout.state == "running":
            for row in rows(20, shift=4.0):
                predict(url, row)
        champion = client.registry.model(MODEL).champion
        return champion is not None and champion.number == 2

    wait_for("the second version is champion", second, platform)
    newest = client.registry.routing(MODEL).revision
    wait_for("it answers", lambda: client.inference.revision(MODEL) == newest, platform)
    return prediction


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder, home = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("platform")
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        platform = Platform(Layout(home, free_port_base()), lambda line: None)
        platform.start()
        try:
            platform.wait_ready()
            session = Session(platform.layout, {}, None)
            prediction = live_through(platform, session.connect(), folder)
            session.close()
        finally:
            platform.stop()
        logs = {name: _lines(home / "logs" / f"{name}.log") for name in SERVICES}
        logs["trainer"] = [line for path in (home / "training/runs").glob("*/log.txt") for line in _lines(path)]
        yield Story(collector, prediction, logs)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_process_of_the_platform_exports_spans_that_say_whose_they_are(story: Story) -> None:
    assert {span.service for span in story.collector.spans.values()} == {
        *("registry", "training", "drift", "inference", "trainer")
    }
    assert story.collector.problems == []
    for span in story.collector.spans.values():
        assert span.resource["service.namespace"] == "modelyard"
        assert span.resource["service.version"] and span.resource["service.instance.id"]


def test_no_span_names_a_parent_that_nobody_exported(story: Story) -> None:
    known = story.collector.spans.keys() | {"", CALLER}

    orphans = [span.place for span in story.collector.spans.values() if span.parent not in known]
    lost = [span.place for span in story.collector.spans.values() if not set(span.links) <= known]

    assert (orphans, lost) == ([], [])


def test_one_prediction_is_followed_from_its_caller_to_drifts_log(story: Story) -> None:
    requests = story.collector.named("inference", "POST /models/{model}/invocations")
    [served] = [span for span in requests if span.trace == TRACE]
    predicted = story.one("inference", "predict", modelyard__prediction_id=story.prediction)

    assert (served.kind, served.parent, served.attributes["http.response.status_code"]) == ("server", CALLER, 200)
    assert (predicted.parent, predicted.trace) == (served.id, TRACE)
    # A batch is sent until drift has taken it.
    sent = next(span for span in story.collector.pointing_to(predicted) if not span.failed)
    assert (sent.service, sent.name, sent.kind, sent.parent) == ("inference", "send predictions", "producer", "")
    [called] = story.collector.below(sent)
    [taken] = story.collector.below(called)
    assert (called.kind, called.attributes["peer.service"]) == ("client", "drift")
    assert (taken.place, taken.kind) == (("drift", "POST /v1/events"), "server")


def test_every_prediction_is_in_a_batch(story: Story) -> None:
    predictions = story.collector.named("inference", "predict")

    assert len(predictions) >= 150
    assert all(story.collector.pointing_to(span) for span in predictions)


BEGUN = [("drift", "decide retrain"), ("drift", "close window")]
ASKED = [("training", "submit run"), ("training", "POST /v1/runs"), ("drift", "POST"), *BEGUN]
REGISTERED = [
    *[("registry", "POST /v1/models/{name}/versions"), ("trainer", "POST"), ("trainer", "run register")],
    *[("trainer", "run"), *ASKED],
]


def test_one_retrain_is_one_trace_from_the_decision_to_the_load(story: Story) -> None:
    collector = story.collector
    decided = story.one("drift", "decide retrain", modelyard__decision="command")
    trace = [span for span in collector.spans.values() if span.trace == decided.trace]

    def chains(service: str, name: str) -> set[tuple[tuple[str, str], ...]]:
        """Return the different ways up from the spans of a name; what is repeated goes the same way."""
        return {tuple(collector.up(span)) for span in trace if span.place == (service, name)}

    assert chains("training", "launch run") == {(("training", "launch run"), *ASKED)}
    assert chains("trainer", "run") == {(("trainer", "run"), *ASKED)}
    assert chains("registry", "POST /v1/models/{name}/versions") == {tuple(REGISTERED)}
    assert chains("registry", "advance rollout") == {(("registry", "advance rollout"), *REGISTERED)}
    canary = (("inference", "apply routing"), *REGISTERED)
    champion = (("inference", "apply routing"), ("registry", "advance rollout"), *REGISTERED)
    assert chains("inference", "apply routing") == {canary, champion}
    # A champion that was a candidate is not loaded again.
    assert chains("inference", "load version") == {(("inference", "load version"), *canary)}


def test_the_stages_of_a_run_are_its_spans_and_its_calls_hang_below_them(story: Story) -> None:
    decided = story.one("drift", "decide retrain", modelyard__decision="command")
    [run] = [span for span in story.collector.named("trainer", "run") if span.trace == decided.trace]

    stages = [span.name for span in story.collector.below(run) if span.name != "POST"]

    assert sorted(stages) == sorted(
        f"run {stage}" for stage in ("load", "validate", "split", "fit", "package", "evaluate", "track", "register")
    )
    assert run.kind == "consumer" and not run.failed
    reports = [
        span
        for span in story.collector.named("training", "POST /v1/runs/{run_id}/reports")
        if span.trace == decided.trace
    ]
    assert len(reports) >= len(stages)


def test_a_first_run_begins_a_trace_of_its_own_and_a_server_that_starts_points_to_it(story: Story) -> None:
    decided = story.one("drift", "decide retrain", modelyard__decision="command")
    [first] = [span for span in story.collector.named("trainer", "run") if span.trace != decided.trace]
    [applied] = [span for span in story.collector.named("inference", "apply routing") if span.links]

    assert story.collector.up(first) == [("trainer", "run"), ("training", "submit run")]
    [publishing] = [story.collector.spans[link] for link in applied.links]
    assert (publishing.trace, applied.parent) == (first.trace, "")


def test_polls_and_probes_are_no_traces(story: Story) -> None:
    names = {span.name for span in story.collector.spans.values()}

    assert not {name for name in names if "/health" in name or "/metrics" in name or "/watch" in name}
    assert not [span for span in story.collector.named("registry", "GET /v1/models") if not span.parent]


def test_log_lines_of_every_process_lead_to_the_trace(story: Story) -> None:
    decided = story.one("drift", "decide retrain", modelyard__decision="command")
    told = {
        name: {line["message"] for line in lines if line.get("trace.id") == decided.trace}
        for name, lines in story.logs.items()
    }

    assert "command.delivered" in told["drift"]
    assert "run.launched" in told["training"]
    assert "run.stage" in told["trainer"]
    assert "routing.in_force" in told["inference"]


def test_all_lines_of_the_loop_fit_the_elastic_common_schema(story: Story) -> None:
    lines = [line for lines in story.logs.values() for line in lines]

    assert [wrong for line in lines for wrong in misfits(line)] == []
    assert conflicts(lines) == {}
