"""What goes wrong between a client and a service becomes one tree of errors, within the deadline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from modelyard_client import DriftClient, InferenceClient, Modelyard, RegistryClient, TrainingClient
from modelyard_client.base import ApiClient, write_whole
from modelyard_client.drift import TakesNoBlocks
from modelyard_common import errors
from modelyard_common.testing import free_port
from modelyard_contracts.bundle_v1 import MANIFEST_FILE
from modelyard_contracts.frames import framed, payloads_in
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE

from libs.common.tests.peer_app import Answer, Peer, problem

Serve = Callable[..., tuple[str, Peer]]
ROWS = [{"x": 1.0}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Invalid),
        (401, errors.Unauthenticated),
        (403, errors.Denied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (422, errors.Invalid),
        (429, errors.Overloaded),
        (500, errors.Unavailable),
        (503, errors.Unavailable),
    ],
)
def test_a_status_becomes_the_error_that_it_stands_for(peer: Serve, status: int, kind: type[Exception]) -> None:
    url, _ = peer(problem(status, detail="because", errors=[{"path": "spec.x", "message": "is wrong"}]))

    with RegistryClient(url, timeout_s=5) as client, pytest.raises(errors.ModelyardError) as caught:
        client.model("m")

    assert type(caught.value) is kind
    assert caught.value.message == "because"
    assert caught.value.errors[0].path == "spec.x"


CALLS: dict[str, tuple[type[ApiClient], Callable[[Any], Any]]] = {
    "a model": (RegistryClient, lambda client: client.model("m")),
    "models": (RegistryClient, lambda client: client.models()),
    "the ledger": (RegistryClient, lambda client: client.ledger()),
    "a run": (TrainingClient, lambda client: client.run("r")),
    "datasets": (TrainingClient, lambda client: client.datasets()),
    "a status": (DriftClient, lambda client: client.status("m")),
    "prediction ids": (DriftClient, lambda client: client.prediction_ids("m")),
    "a report": (DriftClient, lambda client: client.report("m", "1")),
    "a prediction": (InferenceClient, lambda client: client.infer("m", ROWS)),
    "the index": (InferenceClient, lambda client: client.index()),
    "the revision": (InferenceClient, lambda client: client.revision("m")),
    "health": (InferenceClient, lambda client: client.health()),
}


@pytest.mark.parametrize("body", [b"<html>a login page</html>", b"7", b"\xff"], ids=["html", "a number", "no text"])
@pytest.mark.parametrize(("kind", "call"), CALLS.values(), ids=CALLS)
def test_an_answer_that_is_not_the_services_is_unavailable_and_names_the_address(
    peer: Serve, kind: type[ApiClient], call: Callable[[Any], Any], body: bytes
) -> None:
    url, _ = peer(Answer(200, body))

    with kind(url) as client, pytest.raises(errors.Unavailable, match=f"at {url} answered something that is no"):
        call(client)


def test_an_answer_without_predictions_is_not_a_prediction(peer: Serve) -> None:
    url, _ = peer(Answer(200, b'{"model_name": "m", "model_version": "1", "id": "i", "outputs": []}'))

    with InferenceClient(url) as client, pytest.raises(errors.Unavailable, match="without predictions"):
        client.infer("m", ROWS)


@pytest.mark.parametrize(
    "answer",
    [Answer(before_s=12), Answer(body=[b" "] * 50, pause_s=0.2)],
    ids=["silence", "dripping"],
)
def test_a_call_ends_at_its_deadline(peer: Serve, answer: Answer) -> None:
    url, _ = peer(answer)
    start = time.monotonic()

    with RegistryClient(url, timeout_s=0.5) as client, pytest.raises(errors.Unavailable):
        client.model("m")

    assert time.monotonic() - start < 8


def test_a_prediction_is_not_sent_twice_by_itself(peer: Serve) -> None:
    url, asked = peer(problem(503))

    with InferenceClient(url) as client, pytest.raises(errors.Unavailable):
        client.infer("m", ROWS)

    assert len(asked.asked) == 1


def test_a_service_that_is_away_is_named_with_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with Modelyard(registry_url=url) as yard, pytest.raises(errors.Unavailable, match=f"registry at {url}"):
        list(yard.models)


def page(items: list[Any], cursor: str | None) -> Answer:
    return Answer(body=json.dumps({"items": items, "next_cursor": cursor}).encode())


def test_pages_are_walked_to_their_end(peer: Serve) -> None:
    url, asked = peer(page(["a", "b"], "2"), page([], "3"), page(["c"], None))

    with DriftClient(url) as client:
        assert client.prediction_ids("m") == ["a", "b", "c"]
    assert [request.query for request in asked.asked] == ["", "cursor=2", "cursor=3"]


def test_pages_that_go_in_a_circle_are_not_walked_for_ever(peer: Serve) -> None:
    url, _ = peer(page(["a"], "2"))

    with DriftClient(url) as client, pytest.raises(errors.Unavailable, match="in a circle"):
        client.prediction_ids("m")


def test_a_model_is_in_the_models_only_if_the_registry_knows_it(peer: Serve) -> None:
    url, _ = peer(problem(404))

    with Modelyard(registry_url=url) as yard:
        assert "nobody" not in yard.models
        assert 7 not in yard.models


def test_a_download_that_breaks_off_leaves_no_file(peer: Serve, tmp_path: Path) -> None:
    url, _ = peer(Answer(body=[b"half"], headers={"content-length": "1000"}))

    with DriftClient(url) as client, pytest.raises(errors.Unavailable):
        client.labelled("m", None, tmp_path / "rows.parquet")

    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_keeps_the_file_of_before(peer: Serve, tmp_path: Path) -> None:
    url, _ = peer(problem(404, detail="no such dataset"))
    (tmp_path / "rows.parquet").write_bytes(b"before")

    with TrainingClient(url) as client, pytest.raises(errors.NotFound, match="no such dataset"):
        client.download_dataset("sha256:0", tmp_path / "rows.parquet")

    assert (tmp_path / "rows.parquet").read_bytes() == b"before"


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([letter]) * 300_000 for letter in b"abcdefgh"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole(tmp_path / "f", (content[i::3] for i in range(3))), contents * 5))

    assert (tmp_path / "f").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_manifest_that_is_none_ends_a_download_in_words(peer: Serve, tmp_path: Path) -> None:
    url, _ = peer(Answer(body=b'{"model": "m"}'))

    with (
        RegistryClient(url) as client,
        pytest.raises(errors.Invalid, match=f"{MANIFEST_FILE} is not a bundle manifest"),
    ):
        client.download_bundle("m", "sha256:" + "0" * 64, tmp_path)


def test_a_file_is_asked_for_by_its_whole_name(peer: Serve) -> None:
    url, asked = peer(Answer(body=b"x"))

    with RegistryClient(url) as client:
        client.file("m", "sha256:0", "data/a b#c?d%.txt")

    assert asked.asked[0].path == "/v1/models/m/versions/sha256:0/files/data/a%20b%23c%3Fd%25.txt"
    assert asked.asked[0].query == ""


@pytest.mark.parametrize(
    ("answer", "timeout_s", "message"),
    [
        (Answer(body=[b": hello\n\n"], headers={"content-length": "1000"}), 20, "registry at .* cannot be reached"),
        (Answer(body=b"data: {}\n\n"), 20, "sent something that is no WatchEvent"),
        (Answer(body=[b": hello\n\n"] * 2, pause_s=1), 0.3, "cannot be reached"),
        (problem(503, detail="not now"), 20, "not now"),
    ],
    ids=["broken off", "no event", "silent", "refused"],
)
def test_a_watch_that_breaks_says_so(peer: Serve, answer: Answer, timeout_s: float, message: str) -> None:
    url, _ = peer(answer)

    with RegistryClient(url) as client, pytest.raises(errors.Unavailable, match=message):
        list(client.watch(timeout_s=timeout_s))


def test_a_watch_that_nobody_listens_to_ends_with_its_next_heartbeat(peer: Serve) -> None:
    url, _ = peer(Answer(body=[b": heartbeat\n\n"] * 100, pause_s=0.2))
    began = time.monotonic()

    with RegistryClient(url) as client:
        found = list(client.watch(ended=lambda: time.monotonic() > began + 0.3))

    assert found == []
    assert time.monotonic() < began + 10


def test_a_watch_goes_on_after_the_last_event(peer: Serve) -> None:
    event = {"seq": 8, "kind": "model", "model": "m"}
    url, asked = peer(Answer(body=f": hello\n\nid: 8\ndata: {json.dumps(event)}\n\n".encode()))

    with RegistryClient(url) as client:
        found = list(client.watch(7))

    assert [(one.seq, one.model) for one in found] == [(8, "m")]
    assert asked.asked[0].headers["last-event-id"] == "7"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(422, errors=[{"path": "body", "message": "Input should be a valid dictionary"}]), TakesNoBlocks),
        (problem(415), TakesNoBlocks),
        (problem(422, errors=[{"path": "blocks[3].values[1]", "message": "is wrong"}]), errors.Invalid),
        (problem(413), errors.TooLarge),
        (problem(503), errors.Unavailable),
    ],
    ids=["no object", "no such type", "wrong", "large", "away"],
)
def test_a_drift_that_does_not_know_blocks_is_told_from_one_that_refuses_them(
    peer: Serve, answer: Answer, kind: type[Exception]
) -> None:
    url, asked = peer(answer)

    with DriftClient(url) as client, pytest.raises(errors.ModelyardError) as caught:
        client.send_blocks("here", framed([b"\x90", b"\x91\x01"]))

    assert type(caught.value) is kind
    (request,) = asked.asked
    assert request.headers["content-type"] == BLOCKS_MEDIA_TYPE
    assert list(payloads_in(request.body)) == [b"here", b"\x90", b"\x91\x01"]


def test_blocks_are_sent_within_the_deadline(peer: Serve) -> None:
    url, _ = peer(Answer(before_s=12))
    start = time.monotonic()

    with DriftClient(url, timeout_s=0.5) as client, pytest.raises(errors.Unavailable):
        client.send_blocks("here", framed([b"\x90"]))

    assert time.monotonic() - start < 8
