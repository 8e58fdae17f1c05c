"""The whole service over real sockets: real bundles, real HTTP clients, fakes of registry and drift."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest
from inference_fakes import GOOD_ROW, Platform, a_platform, a_server, eventually
from modelyard_bundle.packaging import Packed
from modelyard_client import InferenceClient
from modelyard_common.errors import Invalid, NotFound
from modelyard_common.testing import free_port
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE
from modelyard_inference.api.codecs.labels import event_times_from, times_from_header


def column(name: str, value: Any, datatype: str) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


GOOD_V2 = {
    "inputs": [column("load", 0.7, "FP64"), column("price", 0.2, "FP64"), column("day", "mon", "BYTES")],
}


@pytest.fixture
def served(platform: Platform, bundles: tuple[Packed, Packed]) -> Iterator[tuple[Platform, httpx.Client]]:
    with a_server(platform, bundles) as http:
        yield platform, http


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]) -> Iterator[httpx.Client]:
    """Give a server that no test changes."""
    with a_platform(tmp_path_factory.mktemp("shared")) as platform, a_server(platform, bundles) as http:
        yield http


def test_a_row_is_answered_logged_and_delivered(
    served: tuple[Platform, httpx.Client], bundles: tuple[Packed, Packed]
) -> None:
    platform, http = served
    with InferenceClient(str(http.base_url)) as client:
        at = datetime(2026, 1, 2, tzinfo=UTC)

        answer = client.infer("power", [GOOD_ROW, GOOD_ROW | {"price": None}], event_time=at, routing_key="k")

    assert answer.predictions == [1, 1]
    assert answer.probabilities is not None
    assert [round(sum(row), 5) for row in answer.probabilities] == [1, 1]
    eventually(lambda: len(platform.drift.events) == 2)
    event = platform.drift.events[f"{answer.id}/1", "champion"]
    assert event["features"] == {"load": 0.7, "price": None, "day": "mon"}
    assert (event["revision"], event["champion"], event["version"]) == (1, *[str(bundles[0].digest)] * 2)
    assert (event["routing_key"], event["prediction"]) == ("k", 1)
    assert event["event_time"] == "2026-01-02T00:00:00Z"
    assert event["score"] == pytest.approx(answer.probabilities[1][1])


def test_a_drift_of_an_older_version_gets_the_same_as_json(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        http.post("/v2/models/power/infer", json=GOOD_V2).raise_for_status()
        (event,) = eventually(lambda: platform.drift.role("champion"))
        assert platform.drift.media_types == [BLOCKS_MEDIA_TYPE]
        platform.drift.events.clear()
        platform.drift.knows_blocks = False
        http.post("/v2/models/power/infer", json=GOOD_V2).raise_for_status()
        (told,) = eventually(lambda: platform.drift.role("champion"))

    assert platform.drift.media_types[1:] == [BLOCKS_MEDIA_TYPE, "application/json"]
    assert told.keys() == event.keys()
    same = ("features", "prediction", "score", "version", "revision")
    assert [told[name] for name in same] == [event[name] for name in same]


def test_every_response_names_its_prediction_and_version(shared: httpx.Client, bundles: tuple[Packed, Packed]) -> None:
    http = shared

    responses = [
        http.post("/v2/models/power/infer", json=GOOD_V2 | {"id": "mine"}),
        http.post("/models/power/invocations", json={"dataframe_records": [GOOD_ROW]}),
    ]

    assert [response.headers["modelyard-version"] for response in responses] == [str(bundles[0].digest)] * 2
    assert len({response.headers["modelyard-prediction-id"] for response in responses}) == 2
    assert responses[0].json()["id"] == "mine"
    assert responses[0].json()["model_version"] == "1"


SCORING = {
    "split": {"dataframe_split": {"columns": ["load", "price", "day"], "data": [[0.7, 0.2, "mon"]]}},
    "split without columns": {"dataframe_split": {"data": [[0.7, 0.2, "mon"]]}},
    "records": {"dataframe_records": [GOOD_ROW]},
    "instances of dicts": {"instances": [GOOD_ROW]},
    "instances of lists": {"instances": [[0.7, 0.2, "mon"]]},
    "inputs by column": {"inputs": {"load": [0.7], "price": [0.2], "day": ["mon"]}},
    "inputs by column of one": {"inputs": {"load": [[0.7]], "price": [[0.2]], "day": [["mon"]]}},
    "inputs of lists": {"inputs": [[0.7, 0.2, "mon"]]},
}


@pytest.mark.parametrize("body", SCORING.values(), ids=SCORING.keys())
@pytest.mark.parametrize("path", ["/models/power/invocations", "/invocations"])
def test_every_mlflow_form_gives_the_same_prediction(shared: httpx.Client, path: str, body: dict[str, Any]) -> None:
    response = shared.post(path, json=body)

    assert (response.status_code, response.json()) == (200, {"predictions": [1]})


NOT_QUITE_JSON = {
    "scoring": ("/invocations", b'{"instances": [{"load": 0.7, "price": NaN, "day": "NaN"}]}'),
    "V1": ("/v1/models/power:predict", b'{"instances": [{"load": 0.7, "price": NaN, "day": "NaN"}]}'),
    "V2": (
        "/v2/models/power/infer",
        b'{"inputs": [{"name": "load", "shape": [1], "datatype": "FP64", "data": [0.7]},'
        b'{"name": "price", "shape": [1], "datatype": "FP64", "data": [NaN]},'
        b'{"name": "day", "shape": [1], "datatype": "BYTES", "data": ["NaN"]}]}',
    ),
}


@pytest.mark.parametrize(("path", "body"), NOT_QUITE_JSON.values(), ids=NOT_QUITE_JSON.keys())
def test_nan_as_python_writes_it_is_a_missing_value(
    served: tuple[Platform, httpx.Client], path: str, body: bytes
) -> None:
    platform, http = served

    response = http.post(path, content=body)
    infinite = http.post(path, content=body.replace(b"NaN", b"Infinity", 1))

    assert (response.status_code, infinite.status_code) == (200, 400), response.text
    (event,) = eventually(lambda: platform.drift.role("champion"))
    assert event["features"] == {"load": 0.7, "price": None, "day": "NaN"}


def test_csv_is_typed_by_the_signature(served: tuple[Platform, httpx.Client]) -> None:
    platform, http = served

    response = http.post(
        "/invocations", content="load,price,day\n0.7,0.2,mon\n0.7,,03\n", headers={"content-type": "text/csv"}
    )

    assert response.json() == {"predictions": [1, 1]}
    eventually(lambda: len(platform.drift.events) == 2)
    row = platform.drift.events[response.headers["modelyard-prediction-id"] + "/1", "champion"]
    assert row["features"] == {"load": 0.7, "price": None, "day": "03"}


@pytest.fixture
def with_another(served: tuple[Platform, httpx.Client], bundles: tuple[Packed, Packed]) -> httpx.Client:
    """Give a client of a server of two models, ``power`` and ``other``."""
    platform, http = served
    platform.registry.route("other", str(bundles[1].digest))
    eventually(lambda: http.get("/v2/models/other/ready").status_code == 200)
    return http


def test_invocations_without_a_model_needs_exactly_one(with_another: httpx.Client) -> None:
    http = with_another

    response = http.post("/invocations", json={"dataframe_records": [GOOD_ROW]})

    assert response.status_code == 400
    assert response.json()["error_code"] == "BAD_REQUEST"
    assert "other, power" in response.json()["message"]


def test_a_model_that_was_unloaded_leaves_its_invocations_to_no_other(with_another: httpx.Client) -> None:
    http = with_another
    http.post("/v2/repository/models/other/unload").raise_for_status()

    response = http.post("/invocations", json={"dataframe_records": [GOOD_ROW]})

    assert (response.status_code, "other, power" in response.text) == (400, True)


def test_invocations_of_the_one_model_say_when_to_try_again_until_it_is_ready(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    digest = str(bundles[0].digest)
    platform.registry.route("power", digest)
    with platform.inference() as url, httpx.Client(base_url=url, trust_env=False) as http:
        eventually(lambda: "power" in http.post("/v2/repository/index").text)
        waiting = http.post("/invocations", json={"dataframe_records": [GOOD_ROW]})
        platform.registry.add(*bundles)
        eventually(lambda: http.post("/invocations", json={"dataframe_records": [GOOD_ROW]}).status_code == 200)

    assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "1")
    assert "'power' is not ready" in waiting.json()["message"]


def test_invocations_of_no_model_are_tried_again_until_the_registry_has_said_that_there_is_none(
    platform: Platform,
) -> None:
    def asked(**changes: Any) -> httpx.Response:
        with platform.inference(**changes) as url, httpx.Client(base_url=url, trust_env=False) as http:
            if not changes:
                eventually(lambda: http.get("/v2/health/ready").status_code == 200)
            return http.post("/invocations", json={"dataframe_records": [GOOD_ROW]})

    unheard, none = asked(registry_url=f"http://127.0.0.1:{free_port()}"), asked()

    assert (unheard.status_code, unheard.headers["retry-after"]) == (503, "1")
    assert (none.status_code, none.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


SECRET = "very-secret-value"
BAD_V2 = {
    "not json": (b"{", "is not JSON"),
    "not utf-8": (b'{"inputs": "\xff"}', "body"),
    "no inputs": (b"{}", "inputs"),
    "empty inputs": ({"inputs": []}, "inputs"),
    "missing feature": ({"inputs": [column("day", SECRET, "BYTES")]}, "load"),
    "unknown feature": ({"inputs": [*GOOD_V2["inputs"], column("x", 1.0, "FP64")]}, "x: is not a feature"),
    "text for a number": ({"inputs": [column("load", SECRET, "BYTES"), *GOOD_V2["inputs"][1:]]}, "[0].load"),
    "null for a required one": ({"inputs": [column("load", None, "FP64"), *GOOD_V2["inputs"][1:]]}, "is required"),
    "values unlike the datatype": ({"inputs": [column("load", SECRET, "FP64")]}, "are not FP64"),
    "float for INT64": ({"inputs": [column("load", 1.5, "INT64")]}, "are not INT64"),
    "unknown datatype": ({"inputs": [column("load", 1, "DECIMAL")]}, "datatype"),
    "wrong shape": ({"inputs": [{"name": "load", "shape": [2], "datatype": "FP64", "data": [1]}]}, "shape"),
    "negative shape": ({"inputs": [{"name": "load", "shape": [-1], "datatype": "FP64", "data": [1]}]}, "shape"),
    "no rows": ({"inputs": [{"name": "load", "shape": [0], "datatype": "FP64", "data": []}]}, "no rows"),
    "twice the same": ({"inputs": [GOOD_V2["inputs"][0], *GOOD_V2["inputs"]]}, "given twice"),
    "unlike lengths": (
        {"inputs": [{"name": "load", "shape": [2], "datatype": "FP64", "data": [1, 2]}, *GOOD_V2["inputs"][1:]]},
        "rows",
    ),
    "huge number": ({"inputs": [column("load", 1e39, "FP64"), *GOOD_V2["inputs"][1:]]}, "must lie between"),
    "huge integer": ({"inputs": [column("load", 10**400, "FP64"), *GOOD_V2["inputs"][1:]]}, "load"),
    "misspelt parameter": (GOOD_V2 | {"parameters": {"timout": 1}}, "'timout' is not known; there is timeout"),
    "time without offset": (GOOD_V2 | {"parameters": {"event_time": "2026-01-01T00:00:00"}}, "offset"),
    "no time": (GOOD_V2 | {"parameters": {"event_time": SECRET}}, "event_time"),
    "too many times": (GOOD_V2 | {"parameters": {"event_time": ["2026-01-01T00:00:00Z"] * 2}}, "2 times for 1 rows"),
    "routing key of the wrong type": (GOOD_V2 | {"parameters": {"routing_key": 7}}, "routing_key"),
    "routing key with a NUL": (GOOD_V2 | {"parameters": {"routing_key": "a\0b"}}, "routing_key"),
    "unknown output": (GOOD_V2 | {"outputs": [{"name": "magic"}]}, "magic"),
}


@pytest.mark.parametrize(("body", "says"), BAD_V2.values(), ids=BAD_V2.keys())
def test_wrong_v2_requests_are_named_without_their_values(shared: httpx.Client, body: Any, says: str) -> None:
    http = shared
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}

    response = http.post("/v2/models/power/infer", **sent)

    assert response.status_code == 400, response.text
    assert says in response.json()["error"]
    assert SECRET not in response.text


BAD_SCORING = {
    "not json": b"[",
    "no object": b"[]",
    "no form": b"{}",
    "two forms": b'{"instances": [[1]], "inputs": [[1]]}',
    "unknown form": b'{"rows": []}',
    "unknown part of a form": b'{"dataframe_split": {"data": [[1, 2, "a"]], "rows": 1}}',
    "ragged": b'{"dataframe_split": {"columns": ["load", "price", "day"], "data": [[1]]}}',
    "no rows": b'{"dataframe_records": []}',
    "empty records": b'{"dataframe_records": [{}]}',
    "unlike lengths": b'{"inputs": {"load": [1], "price": [1, 2], "day": ["a"]}}',
    "known param of another type": b'{"instances": [{"load": 1, "day": "a"}], "params": {"routing_key": 1}}',
}
MISFITS = {
    "wrong width": (b'{"instances": [[1, 2]]}', "has 2 columns"),
    "deep": (b'{"inputs": {"load": [[[1]]], "price": [[[1]]], "day": [[["a"]]]}}', "[0].load: must be a number"),
    "missing feature": (b'{"dataframe_records": [{"price": 1, "day": "a"}]}', "[0].load: is required"),
    "other names": (b'{"dataframe_records": [{"a": 1, "b": 2, "c": 3}]}', "[0].load: is required"),
    "text for a number": (b'{"instances": [{"load": "0.7", "day": "a"}]}', "[0].load: must be a number"),
    "an object for a category": (b'{"instances": [{"load": 1, "day": {}}]}', "[0].day: must be a category"),
}


@pytest.mark.parametrize("body", BAD_SCORING.values(), ids=BAD_SCORING.keys())
def test_wrong_scoring_requests_are_bad_requests(shared: httpx.Client, body: bytes) -> None:
    response = shared.post("/invocations", content=body, headers={"content-type": "application/json"})

    assert response.status_code == 400, response.text
    assert response.json().keys() == {"error_code", "message"}
    assert response.json()["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize(("body", "says"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_the_signature_is_told_from_what_cannot_be_read(
    shared: httpx.Client, body: bytes, says: str
) -> None:
    response = shared.post("/invocations", content=body, headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), response.text
    assert says in response.json()["message"]


def test_our_client_hears_which_field_is_wrong(shared: httpx.Client) -> None:
    with InferenceClient(str(shared.base_url)) as client:
        with pytest.raises(Invalid, match="load: is required") as caught:
            client.infer("power", [{"day": "mon", "price": 1.0}])
        with pytest.raises(NotFound, match="there is no model 'nobody'"):
            client.infer("nobody", [GOOD_ROW])

    assert caught.value.errors[0].path == "[0].load"


def test_an_event_time_far_ahead_is_refused_unless_the_model_replays(served: tuple[Platform, httpx.Client]) -> None:
    platform, http = served
    ahead = (datetime.now(UTC) + timedelta(minutes=11)).isoformat()
    body = GOOD_V2 | {"parameters": {"event_time": ahead}}

    before = http.post("/v2/models/power/infer", json=body)
    platform.registry.publish(platform.registry.tables["power"].model_copy(update={"replay": True, "revision": 2}))

    assert before.status_code == 400
    assert "ahead" in before.json()["error"]
    eventually(lambda: http.post("/v2/models/power/infer", json=body).status_code == 200)


def test_headers_carry_time_and_key_for_those_who_cannot_change_the_body(
    served: tuple[Platform, httpx.Client],
) -> None:
    platform, http = served
    headers = {"modelyard-event-time": "2026-01-01T00:00:00+01:00", "modelyard-routing-key": "me"}

    http.post("/invocations", json={"dataframe_records": [GOOD_ROW]}, headers=headers).raise_for_status()

    (event,) = eventually(lambda: platform.drift.role("champion"))
    assert (event["event_time"], event["routing_key"]) == ("2025-12-31T23:00:00Z", "me")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("86400", 86400),
        ("-5", -5),
        ("0", 0),
        ("1.5", 1.5),
        ("1772366400.25", 1772366400.25),
        ("2026-03-01t12:00:00z", 1772366400),
        ("2026-03-01T13:00:00+01:00", 1772366400),
    ],
)
def test_a_time_as_text_is_what_it_is_as_a_number(text: str, seconds: float) -> None:
    wanted = event_times_from(seconds)

    assert event_times_from(text) == times_from_header(f" {text} ") == wanted


@pytest.mark.parametrize("text", ["20260301", "2026-03-01", "- 5", "--5", "1e9", "٨٦٤٠٠", ".", "9" * 400, "nan", ""])
def test_a_text_that_is_no_time_or_may_be_a_date_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="event_time"):
        event_times_from(text)


def test_a_routing_key_is_the_same_in_a_header_as_in_a_body(served: tuple[Platform, httpx.Client]) -> None:
    platform, http = served
    key = "Zürich 東京"
    named = GOOD_V2 | {"parameters": {"routing_key": key}}
    http.post("/v2/models/power/infer", json=named).raise_for_status()
    plain = HTTPConnection(http.base_url.host, http.base_url.port)  # httpx surrounds no value with spaces
    with closing(plain):
        headers = {"modelyard-routing-key": b"\t " + key.encode() + b" \t", "content-type": "application/json \t"}
        plain.request("POST", "/models/power/invocations", json.dumps({"instances": [GOOD_ROW]}), headers)
        assert plain.getresponse().status == 200

    events = eventually(lambda: len(found := platform.drift.role("champion")) == 2 and found)

    assert [event["routing_key"] for event in events] == [key, key]


@pytest.mark.parametrize("path", ["/v2/models/power/infer", "/invocations"])
def test_a_routing_key_that_is_no_text_is_named(shared: httpx.Client, path: str) -> None:
    for _ in range(2):
        response = shared.post(path, json=GOOD_V2, headers=[(b"modelyard-routing-key", b"Z\xfcrich")])

        assert (response.status_code, "modelyard-routing-key: is not UTF-8" in response.text) == (400, True)


def test_a_table_whose_first_line_names_nothing_is_told_so_without_it(shared: httpx.Client) -> None:
    response = shared.post("/invocations", content=f"{SECRET},1\n2,3\n", headers={"content-type": "text/csv"})

    assert (response.status_code, "the first line must name the features" in response.text) == (400, True)
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/power:predict", {"instances": [{f"{number}{'z' * 9000}": 1 for number in range(99)}]}),
        ("/v2/models/power/infer", {"inputs": [column(f"{n}{'z' * 9000}", 1.0, "FP64") for n in range(99)]}),
        ("/v1/models/power:explain", {"instances": [GOOD_ROW], "parameters": {"log" + "z" * 9000: 1}}),
    ],
)
def test_names_that_nobody_knows_come_back_in_part(shared: httpx.Client, path: str, body: Any) -> None:
    response = shared.post(path, json=body)

    assert response.status_code == 400
    assert "z" * 50 in response.text and "z" * 65 not in response.text


def test_metadata_readiness_and_index_speak_v2(shared: httpx.Client) -> None:
    http = shared

    metadata = http.get("/v2/models/power").json()

    assert metadata["versions"] == ["1"]
    assert metadata["platform"] == "modelyard_onnx"
    assert metadata["inputs"][2] == {"name": "day", "datatype": "BYTES", "shape": [-1]}
    assert metadata["outputs"][1] == {"name": "predict_proba", "datatype": "FP32", "shape": [-1, 2]}
    assert http.get("/v2/models/power/versions/1/ready").json()["ready"] is True
    assert http.get("/v2/models/power/versions/7").status_code == 404
    assert "error" in http.get("/v2/models/nobody").json()
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2").json()["name"] == "modelyard-inference"
    assert http.get("/ping").status_code == 200
    assert http.post("/v2/repository/index").json() == [
        {"name": "power", "version": "1", "state": "READY", "reason": ""}
    ]


def test_a_numeric_matrix_is_taken_by_position_beside_named_columns(shared: httpx.Client) -> None:
    matrix = {"name": "input", "shape": [2, 2], "datatype": "FP32", "data": [[0.7, 0.2], [-3, 0.1]]}
    days = {"name": "day", "shape": [2, 1], "datatype": "BYTES", "data": ["mon", "tue"]}

    response = shared.post("/v2/models/power/infer", json={"inputs": [matrix, days], "outputs": [{"name": "predict"}]})

    assert [output["data"] for output in response.json()["outputs"]] == [[1, 0]]


def test_a_model_without_a_champion_is_not_ready_and_says_why(served: tuple[Platform, httpx.Client]) -> None:
    platform, http = served
    platform.registry.route("young", None)
    eventually(lambda: "young" in http.get("/v1/served").json()["waiting"])

    response = http.post("/v2/models/young/infer", json=GOOD_V2)

    assert response.status_code == 503
    assert "no champion" in response.json()["error"]
    assert response.headers["retry-after"] == "1"


def test_bounds_are_kept(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles, max_rows=2, max_body_bytes=4096) as http:
        many = http.post("/invocations", json={"dataframe_records": [GOOD_ROW] * 3})
        large = http.post("/invocations", content=b" " * 5000)
        header = {"modelyard-timeout-ms": "x"}
        timeout = http.post("/invocations", json={"dataframe_records": [GOOD_ROW]}, headers=header)

    assert (many.status_code, large.status_code, timeout.status_code) == (413, 413, 400)
    assert "at most 2" in many.json()["message"]


def test_metrics_and_admin_show_what_happens(served: tuple[Platform, httpx.Client]) -> None:
    platform, http = served
    http.post("/v2/models/power/infer", json=GOOD_V2).raise_for_status()
    eventually(lambda: platform.drift.events)

    exposed = http.get("/metrics").text
    view = eventually(lambda: (seen := http.get("/v1/served").json())["spool"]["pending_bytes"] == 0 and seen)

    assert 'modelyard_inference_requests_total{model="power",outcome="answered",role="champion",version="1"}' in exposed
    assert view["models"][0]["versions"][0]["runtime"] == "onnx"
    assert view["routing_age_s"] == 0
    assert view["spool"]["dropped"] == 0
