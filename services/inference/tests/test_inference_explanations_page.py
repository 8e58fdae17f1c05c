"""docs/explanations.md: its request is answered as it shows, and its bounds are the defaults."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from inference_fakes import Platform, a_server
from modelyard_bundle.packaging import Packed
from modelyard_contracts.explanations_v1 import ExplainResponse
from modelyard_inference.settings import InferenceSettings

PAGE = (Path(__file__).parents[3] / "docs" / "explanations.md").read_text()
[CURL] = re.findall(r"^curl .*$", PAGE, flags=re.MULTILINE)
[SHOWN] = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)


def shape(value: Any) -> Any:
    """Return a document with its values replaced by their kinds."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])]
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_the_request_of_the_page_is_answered_as_it_shows(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        words = [word.replace("$INFERENCE", str(http.base_url).rstrip("/")) for word in shlex.split(CURL)]
        said = subprocess.run([*words, "--noproxy", "*"], capture_output=True, text=True, check=True, timeout=30).stdout
        answer, shown = json.loads(said), json.loads(SHOWN)

    assert shape(answer) == shape(shown)
    for name in ("method", "space", "background", "evaluations", "model_version"):
        assert answer[name] == shown[name]
    [one], [expected] = ExplainResponse.model_validate(answer).explanations, shown["explanations"]
    assert one.contributions == pytest.approx(expected["contributions"], abs=0.005)
    assert (one.value, one.base_value) == pytest.approx((expected["value"], expected["base_value"]), abs=0.005)


def test_the_bounds_of_the_page_are_the_defaults(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    fields = InferenceSettings.model_fields

    assert f"{fields['explain_rows'].default} rows (`explain_rows`" in PAGE
    assert f"{fields['explain_evaluations'].default:,} questions (`explain_evaluations`)" in PAGE
    with a_server(platform, bundles) as http:
        exposed = httpx.get(f"{http.base_url}/metrics", trust_env=False).text
    for name in re.findall(r"`(modelyard_inference_\w+)`", PAGE):
        assert f"# TYPE {name}" in exposed
