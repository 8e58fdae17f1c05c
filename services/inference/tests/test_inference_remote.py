"""Servers of others behind our routing: a real MLServer, a Flask app; their bad days are told as ours, in our words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from inference_fakes import NOW, SIGNATURE, Platform, a_server, digest_of, eventually
from modelyard_bundle.packaging import Packed, pack_foreign
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.runtimes.forms import as_predicted
from modelyard_bundle.runtimes.remote import RemoteFailed, RemoteRuntime
from modelyard_bundle.signature import columns_from_rows
from modelyard_common.errors import Invalid, Overloaded, Unavailable
from modelyard_common.testing import free_port
from modelyard_contracts.bundle_v1 import BundleManifest, Lineage, RemoteServer, Signature
from modelyard_inference.adapters.runtimes import RemoteServers
from modelyard_inference.settings import InferenceSettings

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MLSERVER = ROOT / ".tools" / "clients" / "mlserver" / "bin" / "mlserver"
NUMBERS = SIGNATURE.model_copy(update={"features": SIGNATURE.features[:2]})
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def flask() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen([sys.executable, str(HERE / "flask_scoring.py"), str(port)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _answers(f"http://127.0.0.1:{port}/", 404), 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not MLSERVER.exists():
        pytest.skip("MLServer's environment is not made yet: the conformance suite makes it")
    port, grpc_port, metrics_port = free_port(), free_port(), free_port()
    settings = {"http_port": port, "grpc_port": grpc_port, "metrics_port": metrics_port, "parallel_workers": 0}
    environment = os.environ | {f"MLSERVER_{name.upper()}": str(value) for name, value in settings.items()}
    folder = HERE / "mlserver_model"
    server = subprocess.Popen(
        [str(MLSERVER), "start", str(folder)],
        env=environment | {"MLSERVER_HOST": "127.0.0.1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path_factory.mktemp("mlserver"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _answers(f"http://127.0.0.1:{port}/v2/models/loads/ready", 200), 90)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(url: str, status: int) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == status
    except httpx.HTTPError:
        return False


def scoring(url: str) -> RemoteServer:
    return RemoteServer(url=url, protocol="mlflow-scoring", answers="positive")


def inference(url: str, **changes: Any) -> RemoteServer:
    told = {"model": "loads", "tensors": "matrix", "answers": "probabilities", "output": "chances"} | changes
    return RemoteServer(url=url, protocol="open-inference", **told)


class Expected:
    """What both servers answer."""

    name = "remote"
    blocking = True

    def predict(self, columns: dict[str, Any]) -> Predicted:
        chance = np.where(columns["load"] > 0, 0.9, 0.2).astype(np.float32)
        return Predicted((chance > 0.5).astype(np.int64), np.stack([1 - chance, chance], axis=1))


def bundle_of(folder: Path, server: RemoteServer, signature: Signature, runtime: Any = None) -> Packed:
    rows = [{"load": load / 7 + 0.01, "price": 0.5, "day": "mon"} for load in range(-9, 12)]
    names = {column.name for column in signature.features}
    return pack_foreign(
        folder,
        model="power",
        runtime=runtime or Expected(),
        signature=signature,
        sample=columns_from_rows(signature, [{name: row[name] for name in names} for row in rows]),
        lineage=Lineage(run="external", dataset=digest_of("d"), estimator="remote"),
        baseline_json="{}",
        metrics=(),
        created=NOW,
        remote=server,
    )


def asked(server: RemoteServer, *loads: float, timeout_s: float = 5.0, token_file: Path | None = None) -> Predicted:
    runtime = RemoteRuntime(server, SIGNATURE, timeout_s=timeout_s, token_file=token_file)
    try:
        return runtime.predict(
            columns_from_rows(SIGNATURE, [{"load": load, "price": None, "day": "sun"} for load in loads])
        )
    finally:
        runtime.client.close()


def served(http: httpx.Client, *loads: float) -> httpx.Response:
    return http.post("/v1/models/power:predict", json={"instances": [{"load": load, "price": 1} for load in loads]})


def test_a_flask_app_is_served_with_our_ids_checks_and_log(flask: str, platform: Platform, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "remote", scoring(flask), SIGNATURE)
    with a_server(platform, (bundle,), remote_hosts=(flask.removeprefix("http://"),)) as http:
        good = http.post("/invocations", json={"dataframe_records": [{"load": 0.7, "price": 0.2, "day": "mon"}]})
        wrong = http.post("/invocations", json={"dataframe_records": [{"load": "much", "price": 0.2, "day": "mon"}]})
        view = http.get("/v1/served").json()["models"][0]["versions"][0]
        eventually(lambda: platform.drift.role("champion"))

    assert good.json() == {"predictions": [1]}
    assert good.headers["modelyard-version"] == str(bundle.digest)
    assert wrong.status_code == 400
    assert (view["runtime"], view.get("problem", "")) == ("remote", "")


def test_a_real_mlserver_is_served_over_its_own_protocol(mlserver: str, platform: Platform, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "remote", inference(mlserver), NUMBERS)
    with a_server(platform, (bundle,), remote_hosts=(mlserver.removeprefix("http://"),)) as http:
        rows = served(http, 0.7, -0.7)
        tensors = {"load": [0.7, -0.7, 3.0], "price": [1.0, 1.0, 1.0]}
        inputs = [{"name": n, "shape": [3], "datatype": "FP32", "data": data} for n, data in tensors.items()]
        answer = http.post("/v2/models/power/infer", json={"inputs": inputs}).json()

    assert rows.json() == {"predictions": [1, 0]}
    assert answer["outputs"][0]["data"] == [1, 0, 1]


def test_labels_of_a_real_mlserver_are_classes_of_the_signature(mlserver: str) -> None:
    runtime = RemoteRuntime(inference(mlserver, answers="labels", output="label"), NUMBERS, timeout_s=5.0)
    found = runtime.predict(columns_from_rows(NUMBERS, [{"load": 1, "price": 0}, {"load": -1, "price": 0}]))
    runtime.client.close()

    assert (found.labels.tolist(), found.probabilities) == ([1, 0], None)


def test_a_server_that_nobody_has_allowed_is_never_asked(flask: str, platform: Platform, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "remote", scoring(flask), SIGNATURE)
    platform.registry.add(bundle)
    platform.registry.route("power", str(bundle.digest))
    with platform.inference(remote_hosts=("models.example:80",)):
        eventually(lambda: platform.registry.reports)

    assert platform.registry.outcomes(bundle.digest) == ["refused"]
    assert f"{flask.removeprefix('http://')} is not among the servers" in platform.registry.reports[0].reason


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:word@host", "http://host/?a=b", "gopher://host"])
def test_an_address_that_is_no_plain_address_is_no_manifest(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        scoring(url)


def test_another_port_of_an_allowed_host_is_not_allowed(flask: str) -> None:
    servers = RemoteServers(["127.0.0.1:1"], call_s=1.0)
    manifest = bundle_manifest(scoring(flask))

    with pytest.raises(Invalid, match="is not among the servers"):
        servers.load(Path(), manifest, "", "remote")


def bundle_manifest(server: RemoteServer) -> Any:
    lineage = Lineage(run="r", dataset=digest_of("d"), estimator="remote")
    return BundleManifest(
        model="power", created=NOW, signature=SIGNATURE, runtimes=("remote",), lineage=lineage, files=(), remote=server
    )


@pytest.mark.parametrize(
    ("load", "error", "wait_s"),
    [
        (500, RemoteFailed, None),
        (429, Overloaded, 7),
        (503, Unavailable, 7),
        (504, Unavailable, 1),
        (401, RemoteFailed, None),
        (-1, RemoteFailed, None),
        (-2, RemoteFailed, None),
    ],
)
def test_its_errors_are_told_as_ours_and_its_words_are_not(
    flask: str, load: float, error: type[Exception], wait_s: float | None
) -> None:
    with pytest.raises(error) as caught:
        asked(scoring(flask), load)

    assert "secret" not in str(caught.value)
    assert getattr(caught.value, "retry_after_s", None) == wait_s


def test_a_server_that_wants_to_know_who_asks_is_shown_the_token_that_is_in_its_file_now(
    flask: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    with pytest.raises(Unavailable, match=r"the token .* cannot be read"):
        asked(scoring(flask), 401, token_file=token)
    for broken in (b"", b"two\nlines", "schl\u00fcssel".encode(), b"\xff\xfe"):
        token.write_bytes(broken)
        with pytest.raises(Unavailable, match="does not hold one line"):
            asked(scoring(flask), 401, token_file=token)
    token.write_text("stranger")
    with pytest.raises(RemoteFailed, match=r"does not let us in \(status 401\)"):
        asked(scoring(flask), 401, token_file=token)
    token.write_text("known\n")

    assert asked(scoring(flask), 401, token_file=token).labels.tolist() == [1]


def test_each_server_gets_its_own_token_and_no_other(flask: str, platform: Platform, tmp_path: Path) -> None:
    host = flask.removeprefix("http://")
    (tmp_path / "known").write_text("known")
    bundle = bundle_of(tmp_path / "remote", scoring(flask), SIGNATURE)
    row = {"dataframe_records": [{"load": 401, "price": 0.2, "day": "mon"}]}
    statuses = []
    for named in (host, "127.0.0.1:1"):
        files = {named: tmp_path / "known"}
        with a_server(platform, (bundle,), remote_hosts=(host, "127.0.0.1:1"), remote_token_files=files) as http:
            statuses.append(http.post("/invocations", json=row).status_code)

    assert statuses == [200, 500]


def test_a_token_for_a_server_that_is_not_asked_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="remote_token_files: h:2 is not among remote_hosts"):
        InferenceSettings(remote_hosts=("h:1",), remote_token_files={"h:2": tmp_path})


@pytest.mark.parametrize("wrong", [None, "-1", 5.0, float("nan"), 0], ids=str)
def test_what_is_neither_an_outlier_nor_the_rest_is_no_answer(wrong: Any) -> None:
    detector = SIGNATURE.model_copy(update={"task": "anomaly", "classes": (), "positive_class": None})

    with pytest.raises(ValueError, match="other than -1 for an outlier"):
        as_predicted(detector, [1, wrong, -1], "outliers")
    assert as_predicted(detector, [1, -1.0, -1], "outliers").labels.tolist() == [0, 1, 1]


def test_a_server_that_hangs_is_given_up_at_the_deadline(flask: str) -> None:
    with pytest.raises(Unavailable, match="ReadTimeout"):
        asked(scoring(flask), -3, timeout_s=0.5)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nx-slow: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"], ids=["head", "body"]
)
def test_a_server_that_drips_is_given_up_at_the_deadline(said: bytes) -> None:
    def drip() -> None:
        caller, _ = listening.accept()
        with caller, suppress(OSError):
            caller.sendall(said)
            while not over.wait(0.02):
                caller.sendall(b"1")

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dripping = threading.Thread(target=drip)
        dripping.start()
        began = time.monotonic()
        try:
            with pytest.raises(Unavailable, match="ReadTimeout"):
                asked(scoring(f"http://127.0.0.1:{listening.getsockname()[1]}"), 1.0, timeout_s=0.5)
            took_s = time.monotonic() - began
        finally:
            over.set()
            dripping.join()

    assert 0.4 < took_s < 5


def test_a_server_that_does_not_take_a_request_in_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="WriteTimeout"):
            asked(scoring(f"http://127.0.0.1:{listening.getsockname()[1]}"), *[1.0] * 500_000, timeout_s=1.0)

    assert time.monotonic() - began < 20


def test_a_server_that_is_away_is_left_alone_for_a_while_and_then_asked_again(flask: str) -> None:
    nobody = RemoteRuntime(scoring(f"http://127.0.0.1:{free_port()}"), SIGNATURE, timeout_s=1.0)
    row = columns_from_rows(SIGNATURE, [{"load": 1, "day": "mon"}])
    said = []
    for _ in range(6):
        with pytest.raises(Unavailable) as caught:
            nobody.predict(row)
        said.append(str(caught.value))
    nobody.client.close()

    assert "cannot be reached (ConnectError)" in said[0]
    assert "has not answered for a while" in said[5]
    assert nobody.problem == "it has not answered for a while"


def test_a_failing_server_is_a_503_with_a_time_to_come_back(flask: str, platform: Platform, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "remote", scoring(flask), SIGNATURE)
    with a_server(platform, (bundle,), remote_hosts=(flask.removeprefix("http://"),)) as http:
        body = {"dataframe_records": [{"load": 503, "price": 0.2, "day": "mon"}]}
        away = http.post("/invocations", json=body)
        broken = http.post("/invocations", json={"dataframe_records": [{"load": 500, "price": 0.2, "day": "mon"}]})

    assert (away.status_code, away.headers["retry-after"]) == (503, "7")
    assert broken.status_code == 500
    assert "secret" not in away.text + broken.text


def test_a_matrix_of_categories_is_refused_when_the_version_is_loaded() -> None:
    with pytest.raises(Invalid, match="use columns"):
        RemoteRuntime(inference("http://127.0.0.1:1"), SIGNATURE, timeout_s=1.0)
