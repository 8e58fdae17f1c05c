"""Which model and version a path means, in each protocol."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from modelyard_inference.api.paths import Target, explain_target, infer_target, invocations_target, predict_target

FOUND = [
    (infer_target, "/v2/models/m/infer", Target("m")),
    (infer_target, "/v2/models/m/infer/", Target("m")),
    (infer_target, "/v2/models/m/versions/1/infer", Target("m", "1")),
    (infer_target, "/v2/models/infer/infer", Target("infer")),
    (infer_target, "/v2/models/versions/versions/@champion/infer", Target("versions", "@champion")),
    (invocations_target, "/invocations", Target("")),
    (invocations_target, "/invocations/", Target("")),
    (invocations_target, "/models/m/invocations", Target("m")),
    (invocations_target, "/models/m/versions/2/invocations/", Target("m", "2")),
    (predict_target, "/v1/models/m:predict", Target("m")),
    (predict_target, "/v1/models/m/versions/2:predict", Target("m", "2")),
    (predict_target, "/v1/models/m/labels/champion:predict", Target("m", "@champion")),
    (predict_target, "/v1/models/m/labels/@candidate:predict", Target("m", "@candidate")),
    (explain_target, "/v1/models/m:explain/", Target("m")),
    (explain_target, "/v1/models/m/labels/champion:explain", Target("m", "@champion")),
]
ELSEWHERE = {
    infer_target: [
        "/v2/models/m",
        "/v2/models//infer",
        "/v2/models/m/versions//infer",
        "/v2/models/m/other/1/infer",
        "/",
    ],
    invocations_target: ["/models/invocations", "/models//invocations", "/invocations/x", "/a/models/m/invocations"],
    predict_target: ["/v1/models/m", "/v1/models/:predict", "/v1/models/m/labels/:predict", "/v1/models/m/x/1:predict"],
    explain_target: ["/v1/models/m", "/v1/models/m:predict", "/v1/models/m/labels/:explain"],
}


@pytest.mark.parametrize(("meaning", "path", "target"), FOUND)
def test_a_path_names_its_model_and_version(meaning: Callable[[str], Target | None], path: str, target: Target) -> None:
    assert meaning(path) == target


@pytest.mark.parametrize(("meaning", "path"), [(one, path) for one, paths in ELSEWHERE.items() for path in paths])
def test_other_paths_are_left_to_others(meaning: Callable[[str], Target | None], path: str) -> None:
    assert meaning(path) is None
    assert meaning(f"{path}//") is None
