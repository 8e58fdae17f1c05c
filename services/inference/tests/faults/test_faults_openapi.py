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
PREDICTING = {"/v2/models/power/infer", "/models/power/invocations", "/v1/models/power:predict"}
load_all_checks()
CHECKED = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


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
    with open_loop([server.url], good_requests(), rate=40.0) as load:
        for found in schema.get_all_operations():
            operation = found.ok()
            # A path is made of texts, and every text fits: only a body can be one that does not.
            if mode is GenerationMode.POSITIVE or operation.body:
                statuses[operation.path] = answers_of(operation, mode)

    assert load.failures == []
    assert statuses.keys() >= PREDICTING
    for path in PREDICTING:
        assert statuses[path].total() >= EXAMPLES
        assert statuses[path].keys() <= ({200, 400} if mode is GenerationMode.POSITIVE else {400, 413, 415}), statuses
    if mode is GenerationMode.POSITIVE:  # this form has nothing that JSON Schema cannot say, but for the future
        assert statuses["/v1/models/power:predict"][200] > EXAMPLES * 0.8
    assert "Traceback" not in server.log


def answers_of(operation: Any, mode: GenerationMode) -> Counter[int]:
    """Ask one operation, and return the statuses of its answers."""
    statuses: Counter[int] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        statuses[case.call_and_validate(checks=CHECKED).status_code] += 1

    ask()
    return statuses
