"""MLflow's scoring protocol beyond JSON: Parquet, Arrow in and out, content types, and bodies that nobody wrote."""

from __future__ import annotations

import io
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from inference_fakes import GOOD_ROW, SIGNATURE, Platform, a_platform, a_server, digest_of, eventually
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import Invalid, TooLarge
from modelyard_inference.adapters.columnar import ColumnarProcess
from modelyard_inference.adapters.lanes import ThreadLane
from modelyard_inference.api.codecs.scoring import columns_of, decode_csv
from modelyard_inference.domain.answers import Answers
from modelyard_inference.domain.binding import Binder
from modelyard_inference.domain.requests import Answer, Late

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
DAYS = pd.to_datetime(["2026-01-01", "2026-01-03"])
FRAME = pd.DataFrame({"load": [0.7, -3.0], "price": [0.2, float("nan")], "day": ["mon", "tue"]})


def parquet(frame: pd.DataFrame, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame), sink, **options)
    return sink.getvalue()


def arrow(frame: pd.DataFrame, kind: str = STREAM, **options: Any) -> bytes:
    table, sink = pa.Table.from_pandas(frame), io.BytesIO()
    make = ipc.new_stream if kind == STREAM else ipc.new_file
    with make(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]
) -> Iterator[tuple[Platform, httpx.Client]]:
    """Give a server that no test changes."""
    with a_platform(tmp_path_factory.mktemp("scoring")) as platform, a_server(platform, bundles) as http:
        yield platform, http


def post(http: httpx.Client, content: bytes, kind: str, **headers: str) -> httpx.Response:
    return http.post("/invocations", content=content, headers={"content-type": kind, **headers}, timeout=30)


TABLES = {
    "parquet": (parquet(FRAME), PARQUET),
    "parquet with an index": (parquet(FRAME.set_axis(["a", "b"])), PARQUET),
    "parquet with an index of a name": (parquet(FRAME.assign(id=["a", "b"]).set_index("id")), PARQUET),
    "parquet with an index of days": (parquet(FRAME.assign(at=DAYS).set_index("at")), PARQUET),
    "parquet with a feature as its index": (parquet(FRAME.set_index("day")), PARQUET),
    "parquet with several as its index": (parquet(FRAME.assign(id=[7, 9]).set_index(["id", "day"])), PARQUET),
    "parquet, zstd": (parquet(FRAME, compression="zstd"), PARQUET),
    "parquet of categories": (parquet(FRAME.astype({"day": "category"})), PARQUET),
    "parquet of 32 bits": (parquet(FRAME.astype({"load": "float32"})), PARQUET),
    "arrow stream": (arrow(FRAME), STREAM),
    "arrow stream with an index of a name": (arrow(FRAME.set_index(pd.Index([7, 9], name="id"))), STREAM),
    "arrow stream, lz4": (arrow(FRAME, options=ipc.IpcWriteOptions(compression="lz4")), STREAM),
    "arrow file": (arrow(FRAME, FILE), FILE),
    "arrow file with an index of a name": (arrow(FRAME.set_index(pd.Index([7, 9], name="id")), FILE), FILE),
    "parquet with columns that are no features": (parquet(FRAME.assign(x=1, at=DAYS, all=[[1], [2]])), PARQUET),
    "arrow stream with columns that are no features": (arrow(FRAME.assign(x="a", at=DAYS)), STREAM),
    "csv": (FRAME.to_csv(index=False).encode(), CSV),
    "csv with columns that are no features": (FRAME.assign(x="a", at=DAYS).to_csv(index=False).encode(), CSV),
    "csv with an index": (FRAME.to_csv().encode(), CSV),
}


@pytest.mark.parametrize(("content", "kind"), TABLES.values(), ids=TABLES.keys())
def test_tables_are_answered_and_logged_as_json_is(
    served: tuple[Platform, httpx.Client], content: bytes, kind: str
) -> None:
    platform, http = served

    response = post(http, content, kind)

    assert (response.status_code, response.json()) == (200, {"predictions": [1, 0]})
    prediction = response.headers["modelyard-prediction-id"]
    event = eventually(lambda: platform.drift.events.get((f"{prediction}/1", "champion")))
    assert event["features"] == {"load": -3.0, "price": None, "day": "tue"}


EXTRAS = {
    "records": {"dataframe_records": [GOOD_ROW | {"x": 1}, GOOD_ROW | {"y": {"z": [None]}}]},
    "split": {"dataframe_split": {"columns": ["x", *GOOD_ROW], "data": [[1, *GOOD_ROW.values()]] * 2}},
    "instances": {"instances": [GOOD_ROW | {"x": 1}] * 2},
    "columns": {"inputs": {"load": [0.7] * 2, "price": [0.2] * 2, "day": ["mon"] * 2, "x": [[1, 2], {}]}},
    "a key beside": {"dataframe_records": [GOOD_ROW] * 2, "client_request_id": "a", "deep": {"a": [{}]}},
    "params": {"dataframe_records": [GOOD_ROW] * 2, "params": {"temperature": 0.5, "routing_key": "me"}},
}


@pytest.mark.parametrize("body", EXTRAS.values(), ids=EXTRAS.keys())
def test_what_mlflow_ignores_is_ignored_and_not_logged(
    served: tuple[Platform, httpx.Client], body: dict[str, Any]
) -> None:
    platform, http = served

    response = http.post("/invocations", json=body)

    assert (response.status_code, response.json()) == (200, {"predictions": [1, 1]})
    prediction = response.headers["modelyard-prediction-id"]
    event = eventually(lambda: platform.drift.events.get((f"{prediction}/1", "champion")))
    assert event["features"] == GOOD_ROW


def test_an_optional_feature_may_be_missing_beside_a_column_that_is_none(
    served: tuple[Platform, httpx.Client],
) -> None:
    response = served[1].post("/invocations", json={"dataframe_records": [{"load": 0.7, "day": "mon", "x": 1}]})

    assert (response.status_code, response.json()) == (200, {"predictions": [1]})


@pytest.mark.parametrize("kind", [STREAM, PARQUET, "application/json"])
def test_answers_come_as_arrow_when_they_are_asked_for_so(served: tuple[Platform, httpx.Client], kind: str) -> None:
    _, http = served
    rows = FRAME.drop(columns="price").to_json(orient="records")
    content = {STREAM: arrow(FRAME), PARQUET: parquet(FRAME)}.get(kind, f'{{"dataframe_records": {rows}}}'.encode())

    response = post(http, content, kind, accept=STREAM)

    assert response.headers["content-type"] == STREAM
    answered = ipc.open_stream(response.content).read_all().to_pydict()
    assert list(answered) == ["predictions", "probability_0", "probability_1"]
    assert answered["predictions"] == [1, 0]
    assert [
        sum(row) for row in zip(answered["probability_0"], answered["probability_1"], strict=True)
    ] == pytest.approx([1, 1])
    assert answered["probability_1"][0] > 0.5 > answered["probability_1"][1]


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        (STREAM.upper(), STREAM),
        (f"text/html, {STREAM}; q=0.5, */*;q=0.1", STREAM),
        (f"application/json, {STREAM}", STREAM),
        (f"{STREAM};version=1;Q=0.9, application/json;q=0.8", STREAM),
        (f"{STREAM};q=0", "application/json"),
        (f"{STREAM};q=0.000, */*", "application/json"),
        (f"{STREAM};q=0.5, application/json", "application/json"),
        (f"{STREAM};q=0.5, application/*", "application/json"),
        (f"{STREAM}+xml", "application/json"),
        (f"text/html;profile={STREAM}", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_answers_are_what_the_caller_likes_best(
    served: tuple[Platform, httpx.Client], accepted: str, kind: str
) -> None:
    _, http = served

    response = post(http, b'{"instances": [{"load": 0.7, "day": "mon"}]}', "application/json", accept=accepted)

    assert (response.status_code, response.headers["content-type"]) == (200, kind)


@pytest.mark.parametrize(
    ("task", "classes", "answers", "columns"),
    [
        (
            "classification",
            (False, True),
            Answers([True, False], np.array([0.25, 0.75, 1.0, 0.0], np.float32), 2, [0.75, 0.0]),
            {"predictions": [True, False], "probability_false": [0.25, 1.0], "probability_true": [0.75, 0.0]},
        ),
        ("anomaly", (), Answers([1, 0], None, 1, [0.5, 0.25]), {"predictions": [1, 0], "score": [0.5, 0.25]}),
        ("regression", (), Answers([1.5, 2.0]), {"predictions": [1.5, 2.0]}),
    ],
)
def test_a_table_of_answers_has_what_the_task_has(task: Any, classes: Any, answers: Answers, columns: Any) -> None:
    signature = SIGNATURE.model_copy(update={"task": task, "classes": classes})

    assert columns_of(Answer("p", "power", 1, digest_of("a"), "champion", signature, answers)) == columns


BAD = {
    "no parquet": (b"PAR1 and no more", PARQUET, 400),
    "empty": (b"", STREAM, 400),
    "json as parquet": (b"{}", PARQUET, 400),
    "no rows": (parquet(FRAME.iloc[:0]), PARQUET, 400),
    "points in time": (parquet(FRAME.assign(day=pd.Timestamp("2026-01-01"))), PARQUET, 400),
    "lists": (arrow(FRAME.assign(load=[[1], [2]])), STREAM, 400),
    "a point in time for an optional feature": (parquet(FRAME.assign(price=DAYS)), PARQUET, 400),
    "nothing but an index": (parquet(FRAME.set_index("load")[[]]), PARQUET, 400),
    "missing column": (parquet(FRAME[["price", "day"]]), PARQUET, 400),
}


@pytest.mark.parametrize(("content", "kind", "status"), BAD.values(), ids=BAD.keys())
def test_wrong_tables_are_the_callers_error(
    served: tuple[Platform, httpx.Client], content: bytes, kind: str, status: int
) -> None:
    _, http = served

    response = post(http, content, kind)

    assert (response.status_code, response.json().keys()) == (status, {"error_code", "message"}), response.text


MEDIA = {
    "application/json; charset=utf-8": 200,
    'Application/JSON; Charset="UTF-8"': 200,
    "": 200,
    "application/json; charset=latin-1": 415,
    "application/json; profile=x": 415,
    "application/xml": 415,
    "text/plain": 415,
}


@pytest.mark.parametrize(("kind", "status"), MEDIA.items())
def test_content_types_are_those_of_mlflow(served: tuple[Platform, httpx.Client], kind: str, status: int) -> None:
    _, http = served

    response = post(http, b'{"instances": [{"load": 0.7, "day": "mon"}]}', kind)

    assert response.status_code == status
    assert response.headers["content-type"] == ("application/json" if status == 200 else "text/plain; charset=utf-8")


NUMBERS = ("1", "-2.5", "+1", ".5", "1.", "1e5", "1E-5", "007", " 1 ", "\t1", '"1"', '" 1"')
MISSING = ("", "NaN", "nan", "-nan", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NULL", "null", "None")
INFINITE = ("infinity", "-Inf", "1e400")
NO_NUMBERS = ("1_000", "1e1_0", "\u0663", "\uff11", "\xa01", "1\u2003", "0x10", "1d5", "1e", "+ 1", "1 2", "1f", "none")


@pytest.mark.parametrize("text", [*NUMBERS, *MISSING, *INFINITE, *NO_NUMBERS])
def test_numbers_in_csv_are_those_that_mlflow_reads(text: str) -> None:
    content = f"load,day,price\n1,mon,{text}\n"
    try:  # as mlflow.pyfunc.scoring_server.parse_csv_input does
        theirs = float(pd.read_csv(io.StringIO(content), dtype={"price": np.float64})["price"][0])
    except ValueError:
        theirs = math.inf

    try:
        ours = float(Binder(SIGNATURE).bind(decode_csv(content.encode()).rows).numbers[0, 1])
    except Invalid as exc:
        assert "price" in exc.message and math.isinf(theirs)  # no model computes with what is infinite
    else:
        assert ours == pytest.approx(theirs, nan_ok=True)


def test_ping_answers_as_mlflow_does(served: tuple[Platform, httpx.Client]) -> None:
    _, http = served

    assert (http.get("/ping").status_code, http.get("/ping").text) == (200, "\n")


def test_version_is_that_of_the_server_and_not_of_mlflow(served: tuple[Platform, httpx.Client]) -> None:
    _, http = served

    assert http.get("/version").text == "0.1.0"


def test_health_has_the_status_of_mlflows_and_a_body_that_names_the_checks(
    served: tuple[Platform, httpx.Client],
) -> None:
    _, http = served

    health = http.get("/health")

    assert health.status_code == 200
    assert health.json() == http.get("/health/ready").json()
    assert (health.json()["status"], health.json()["checks"]["models"]) == ("ready", "ok")


# ---- the process that reads tables


@pytest.fixture
def reader() -> Iterator[ColumnarProcess]:
    lane = ThreadLane("tables", threads=1, depth=4)
    process = ColumnarProcess(lane, most_rows=100, most_bytes=1_000_000)
    yield process
    process.close()
    lane.close()


def read(process: ColumnarProcess, content: bytes, form: Any = "parquet", timeout_s: float = 30) -> Any:
    import asyncio

    return asyncio.run(process.read(content, form, timeout_s))


def test_a_few_bytes_that_unpack_to_many_cost_one_request(reader: ColumnarProcess) -> None:
    long = parquet(pd.DataFrame({"day": ["x" * 900_000] * 90}), compression="zstd")
    huge = parquet(pd.DataFrame({"day": ["x" * 400_000_000]}), compression="zstd")
    rows = parquet(pd.DataFrame({"load": [0.0] * 101}))

    for content in (long, rows):
        with pytest.raises(TooLarge):
            read(reader, content)
    with pytest.raises((Invalid, TooLarge)):
        read(reader, huge)

    assert max(len(long), len(huge)) < 200_000
    assert read(reader, parquet(FRAME)).count == 2


def test_a_process_that_dies_is_replaced(reader: ColumnarProcess) -> None:
    assert read(reader, parquet(FRAME)).count == 2
    process = reader._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)

    assert read(reader, parquet(FRAME)).count == 2


def test_a_process_that_hangs_is_late_and_ended(reader: ColumnarProcess) -> None:
    assert read(reader, parquet(FRAME)).count == 2
    process = reader._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)

    with pytest.raises(Late):
        read(reader, parquet(FRAME), timeout_s=0.5)

    assert process.wait(10) == -signal.SIGKILL
    assert read(reader, parquet(FRAME)).count == 2


def test_damaged_tables_are_refused_whatever_they_do_to_their_reader(reader: ColumnarProcess) -> None:
    chance = random.Random(7)
    samples: list[tuple[bytes, Any]] = [
        (parquet(FRAME), "parquet"),
        (arrow(FRAME), "arrow_stream"),
        (arrow(FRAME, FILE), "arrow_file"),
    ]
    for _ in range(80):
        content, form = chance.choice(samples)
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        cut = len(damaged) if chance.random() < 0.8 else chance.randrange(len(damaged))
        try:
            read(reader, bytes(damaged[:cut]), form)
        except (Invalid, TooLarge):
            continue

    assert read(reader, parquet(FRAME)).count == 2


@pytest.mark.parametrize(
    "heavy",
    [
        "arro3",
        "grpc",
        "sklearn",
        "pydantic.v1",
        "google.protobuf.descriptor_pb2",
        "modelyard_contracts.managed_model_v1alpha1",
    ],
)
def test_the_server_itself_never_loads_what_it_does_not_need(heavy: str) -> None:
    code = f"import sys, modelyard_inference.worker; sys.exit(sys.modules.get({heavy!r}) is not None)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
