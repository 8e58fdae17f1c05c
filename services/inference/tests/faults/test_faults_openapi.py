"""What the server says of itself in OpenAPI, tried by schemathesis: requests that fit, and requests that do not.

The document is that of a live server, typed by its model. Whatever is asked, the answer is one that the document names,
in its form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from inference_fakes import a_platform
from inference_process import InferenceProcess, good_requests, processes
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EXAMPLES = 60
UNSAYABLE = ("has columns of different lengths", " times for ", "is no time", "ahead of this server")
"""What is wrong with some bodies that fit: a schema compares no lengths, and takes leap seconds and times to come."""
PREDICTING = {"/v2/models/power/infer", "/models/power/invocations", "/v1/models/power:predict"}
load_all_checks()
FORM = CHECKS.get_by_names(["status_code_conformance", "content_type_conformance", "response_schema_conformance"])
NO_SERVER_ERROR = CHECKS.get_by_names(["not_a_server_error"])


@pytest.fixture(scope="module")
def server(bundles: tuple[Packed, Packed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    folder = tmp_path_factory.mktemp("openapi")
    with a_platform(folder / "fakes") as platform, processes(platform, bundles, folder) as (one,):
        yield one


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
def test_every_answer_is_one_that_the_document_names(server: InferenceProcess, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(server.get("/openapi.json").json())
    schema.config.update(base_url=server.url)
    statuses: dict[str, Counter[int]] = {}
    refusals: set[str] = set()
    with open_loop([server.url], good_requests(), rate=40.0) as load:
        for found in schema.get_all_operations():
            operation = found.ok()
            # A path is made of texts, and every text fits: only a body can be one that does not.
            if mode is GenerationMode.POSITIVE or operation.body:
                statuses[operation.path] = answers_of(operation, mode, refusals)

    assert load.failures == []
    assert statuses.keys() >= PREDICTING
    # 504: it names a time of its own that is too short, see ``answers_of``.
    allowed = {200, 400, 504} if mode is GenerationMode.POSITIVE else {400, 413, 415, 504}
    for path in PREDICTING:
        assert statuses[path].total() >= EXAMPLES
        assert statuses[path].keys() <= allowed, statuses
    if mode is GenerationMode.POSITIVE:
        assert statuses["/v1/models/power:predict"][200] > 0
        assert [text for text in refusals if not any(reason in text for reason in UNSAYABLE)] == []
    assert "Traceback" not in server.log


def answers_of(operation: Any, mode: GenerationMode, refusals: set[str]) -> Counter[int]:
    """Ask one operation, and return the statuses of its answers; note why V1 refused to predict."""
    statuses: Counter[int] = Counter()

    @settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck])
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call()
        late = answer.status_code == 504 and names_a_timeout(case.body)
        case.validate_response(answer, checks=FORM if late else [*NO_SERVER_ERROR, *FORM])
        statuses[answer.status_code] += 1
        if operation.path == "/v1/models/power:predict" and answer.status_code == 400:
            refusals.add(answer.text)

    ask()
    return statuses


def names_a_timeout(body: Any) -> bool:
    """Return whether a request says itself how long its answer may take: that may be a microsecond."""
    named = (body.get("parameters") or body.get("params")) if isinstance(body, dict) else None
    return isinstance(named, dict) and isinstance(timeout := named.get("timeout"), int) and timeout > 0
