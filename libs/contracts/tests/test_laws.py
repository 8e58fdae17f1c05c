"""Laws: what parses formats back, equal values have equal digests, and a digest moves only for what it stands for."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_contracts.base import UtcTime
from modelyard_contracts.bundle_v1 import BundleManifest, manifest_digest
from modelyard_contracts.canonical import canonical_json
from modelyard_contracts.durations import duration_s
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_contracts.refs import DatasetRef, Digest, ModelName, PredictionId, RefError
from modelyard_contracts.specs import spec_digest, training_digest
from pydantic import TypeAdapter, ValidationError

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
RESPONSE_IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@given(HEX)
def test_a_digest_survives_formatting(digits: str) -> None:
    digest = Digest(digits)

    assert Digest.parse(str(digest)) == digest
    assert str(DatasetRef.parse(f"dataset://{digest}")) == f"dataset://{digest}"
    assert str(digest).removeprefix("sha256:").startswith(digest.short)


@given(RESPONSE_IDS, st.integers(0, 999_999_999))
def test_a_prediction_id_survives_formatting(response: str, row: int) -> None:
    assert PredictionId.parse(str(PredictionId(response, row))) == PredictionId(response, row)


def test_a_prediction_id_without_a_row_is_row_zero() -> None:
    assert str(PredictionId.parse("p-1")) == "p-1/0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "g" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "md5:" + "0" * 32,
        "0" * 64,
        f"sha256:{'0' * 64}\n",
        f" sha256:{'0' * 64}",
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(RefError):
        Digest.parse(text)
    with pytest.raises(RefError):
        DatasetRef.parse(f"dataset://{text}")


@pytest.mark.parametrize("text", ["", "/0", "p/", "p/-1", "p/01", "p/x", "p/1/2", "a b/0", "p/0\n", "x" * 129, "ü/0"])
def test_what_is_no_prediction_id_is_refused(text: str) -> None:
    with pytest.raises(RefError):
        PredictionId.parse(text)


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    for kind in (Digest, DatasetRef, PredictionId):
        try:
            parsed = kind.parse(text)
        except RefError:
            continue
        assert kind.parse(str(parsed)) == parsed


@pytest.mark.parametrize("name", ["a", "a-b", "0", "a" * 63])
def test_a_dns_label_is_a_model_name(name: str) -> None:
    assert TypeAdapter(ModelName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a" * 64, "a\n", "ä"])
def test_anything_else_is_not_a_model_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ModelName).validate_python(name)


UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)

    assert duration_s(text) == pytest.approx(sum(number * UNITS[unit] for number, unit in parts))


@pytest.mark.parametrize("text", ["", "10", "s", "1.5h", "-1s", "1 h", "1H", "1w", "1h ", "1h\n", "\u0661s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is written like"):
        duration_s(text)


@given(st.datetimes(min_value=datetime(1902, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-840, 840))
def test_a_time_keeps_its_moment_and_comes_out_in_utc(moment: datetime, offset_min: int) -> None:
    sent = moment.replace(tzinfo=timezone(timedelta(minutes=offset_min)))

    received = TypeAdapter(UtcTime).validate_python(sent.isoformat())

    assert received == sent
    assert received.tzinfo is UTC


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs an offset"):
        TypeAdapter(UtcTime).validate_python("2026-01-31T12:00:00")


@given(JSON)
def test_canonical_json_is_json_and_stays_itself(value: Any) -> None:
    text = canonical_json(value)

    assert canonical_json(json.loads(text)) == text
    assert json.loads(text) == value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.integers(), max_size=6))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_canonical_json_refuses_what_json_does_not_have(value: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


LEARNS = [
    ("task", "regression"),
    ("data.source.uri", "dataset://sha256:" + "1" * 64),
    ("data.target", "down"),
    ("data.positiveClass", 0),
    ("data.timestamp", "when"),
    ("data.keys", ["customer"]),
    ("data.features", {"price": {"type": "number"}}),
    ("data.checks.maxMissing", 0.5),
    ("train.recipe.estimator", "random_forest"),
    ("train.recipe.params", {"max_iter": 201}),
    ("train.learnFrom.recent", {"rows": 4001}),
    ("train.learnFrom.feedback", False),
    ("train.split.test", 0.3),
    ("train.seed", 8),
]
LEARNS_NOT = [
    ("description", "other"),
    ("owner", "others"),
    ("paused", True),
    ("deletionPolicy", "delete"),
    ("train.timeout", "1h"),
    ("train.resources.memory", "8Gi"),
    ("train.when", []),
    ("gate", []),
    ("rollout.contenders", 1),
    ("serve.replicas.max", 9),
    ("monitor.window", {"rows": 100}),
]


def with_change(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    copied = copy.deepcopy(document)
    *way, last = path.split(".")
    here = copied["spec"]
    for part in way:
        here = here[part]
    here[last] = value
    if path == "task":
        copied["spec"] |= {"gate": [], "monitor": {}}
        copied["spec"]["train"]["when"] = []
    return copied


@pytest.mark.parametrize(("path", "value"), LEARNS, ids=[path for path, _ in LEARNS])
def test_what_a_run_learns_from_moves_the_training_digest(electricity: dict[str, Any], path: str, value: Any) -> None:
    before, after = parse_manifest(electricity).spec, parse_manifest(with_change(electricity, path, value)).spec

    assert training_digest(after) != training_digest(before)
    assert spec_digest(after) != spec_digest(before)


@pytest.mark.parametrize(("path", "value"), LEARNS_NOT, ids=[path for path, _ in LEARNS_NOT])
def test_the_rest_of_the_policy_trains_nothing_anew(electricity: dict[str, Any], path: str, value: Any) -> None:
    before, after = parse_manifest(electricity).spec, parse_manifest(with_change(electricity, path, value)).spec

    assert training_digest(after) == training_digest(before)
    assert spec_digest(after) != spec_digest(before)


def test_writing_out_a_default_changes_no_digest(electricity: dict[str, Any]) -> None:
    before = parse_manifest(electricity).spec
    after = parse_manifest(with_change(electricity, "monitor.replay", False)).spec

    assert spec_digest(after) == spec_digest(before)


def test_metadata_is_not_policy(electricity: dict[str, Any]) -> None:
    labelled = copy.deepcopy(electricity)
    labelled["metadata"]["labels"] = {"team": "grid"}

    assert spec_digest(parse_manifest(labelled).spec) == spec_digest(parse_manifest(electricity).spec)


def test_the_digests_of_the_example_stay_what_they_were(electricity: dict[str, Any]) -> None:
    """A release that moves these trains every model anew: it says so in its change log, and in its migration."""
    spec = parse_manifest(electricity).spec

    assert (spec_digest(spec).short, training_digest(spec).short) == ("a5c9e001fc04", "0d065b68fa74")


def bundle(**extra: Any) -> BundleManifest:
    digest = "sha256:" + hashlib.sha256(b"x").hexdigest()
    return BundleManifest.model_validate(
        {
            "model": "m",
            "created": "2026-01-31T12:00:00Z",
            "signature": {"task": "regression", "features": [{"name": "a", "type": "number"}], "target": "y"},
            "runtimes": ["onnx"],
            "lineage": {"run": "r-1", "dataset": digest, "estimator": "ridge"},
            "files": [{"path": "model.onnx", "digest": digest, "size_bytes": 1}],
        }
        | extra
    )


def test_a_bundles_digest_survives_the_wire() -> None:
    manifest = bundle()

    assert manifest_digest(BundleManifest.model_validate_json(manifest.model_dump_json())) == manifest_digest(manifest)


def test_a_bundle_lists_no_file_that_no_system_has() -> None:
    with pytest.raises(ValidationError, match="a path holds no NUL"):
        bundle(files=[{"path": "no\0te.txt", "digest": "sha256:" + "0" * 64, "size_bytes": 1}])


def test_a_bundle_without_a_later_field_keeps_its_digest() -> None:
    assert manifest_digest(bundle(parity="", metrics=[])) == manifest_digest(bundle())


@pytest.mark.parametrize("change", [{"model": "n"}, {"files": []}, {"runtimes": ["sklearn"]}, {"parity": "held"}])
def test_every_fact_of_a_bundle_is_in_its_digest(change: dict[str, Any]) -> None:
    assert manifest_digest(bundle(**change)) != manifest_digest(bundle())
