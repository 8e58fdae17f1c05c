"""docs/protocols.md: every request in it is answered, and every status in it is the one that is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from inference_fakes import GOOD_ROW, a_platform, a_server
from modelyard_bundle.packaging import Packed
from modelyard_client.inference import tensors
from modelyard_common import errors
from modelyard_inference.api.errors import UnsupportedMedia, protocol_status
from modelyard_inference.api.grpc.edge import status_of
from modelyard_inference.domain.requests import Late

PAGE = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text()
REQUESTS = re.findall(r"^\| `(GET|POST) (\S+)` \|", PAGE, flags=re.MULTILINE)
STATUSES = dict(re.findall(r"\| (4\d\d|5\d\d) \| ([A-Z_]+) \|", PAGE))
RAISED = {
    400: errors.Invalid("x"),
    401: errors.Unauthenticated(),
    403: errors.Denied("x"),
    404: errors.NotFound("x"),
    413: errors.TooLarge("x"),
    429: errors.Overloaded("x"),
    503: errors.Unavailable("x"),
    504: Late("x"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]) -> Iterator[httpx.Client]:
    with a_platform(tmp_path_factory.mktemp("page")) as platform, a_server(platform, bundles) as http:
        yield http


@pytest.mark.parametrize(("method", "path"), REQUESTS, ids=[" ".join(request) for request in REQUESTS])
def test_every_request_of_the_page_is_answered(shared: httpx.Client, method: str, path: str) -> None:
    body = {"inputs": tensors([GOOD_ROW])} if path.endswith("infer") else {"instances": [GOOD_ROW]}
    if "repository" in path:
        body = {}

    response = shared.request(method, path, json=body if method == "POST" else None)
    shared.post("/v2/repository/models/power/load").raise_for_status()

    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("status", "error"), RAISED.items())
def test_every_status_of_the_page_is_the_one_that_is_given(status: int, error: errors.ModelyardError) -> None:
    assert (protocol_status(error), status_of(error).name) == (status, STATUSES[str(status)])


def test_the_page_has_all_of_them() -> None:
    assert len(REQUESTS) >= 20
    assert set(map(int, STATUSES)) == {*RAISED, protocol_status(UnsupportedMedia("x"))}
