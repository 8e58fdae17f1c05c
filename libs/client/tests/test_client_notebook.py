"""What a person types in a notebook, against the real services."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import modelyard_client
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pytest
from client_world import MODEL, TOKEN, World
from modelyard_client import Modelyard
from modelyard_common.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated

from services.inference.tests.inference_fakes import eventually

ROWS: list[dict[str, Any]] = [
    {"load": 3.0, "price": 0.2, "day": "mon"},
    {"load": -3.0, "price": None, "day": "sun"},
]


@pytest.fixture
def yard(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modelyard]:
    """Give the façade as a notebook makes it: everything comes from the environment."""
    monkeypatch.setenv("MODELYARD_INFERENCE_URL", world.inference_url)
    monkeypatch.setenv("MODELYARD_DRIFT_URL", world.drift_url)
    monkeypatch.setenv("MODELYARD_REGISTRY_URL", world.registry_url)
    monkeypatch.setenv("MODELYARD_TOKEN_FILE", str(world.token_file))
    with Modelyard() as made:
        yield made


def test_a_data_frame_is_predicted_row_by_row(yard: Modelyard, world: World) -> None:
    frame = pd.DataFrame(ROWS)

    answer = yard.models[MODEL].predict(frame)

    assert answer.predictions == [1, 0]
    assert (answer.model, answer.version) == (MODEL, "1")
    assert answer.probabilities is not None
    assert [len(chances) for chances in answer.probabilities] == [2, 2]
    assert [round(sum(chances), 5) for chances in answer.probabilities] == [1, 1]


FRAMES = {
    "a list of dicts": ROWS,
    "a tuple of dicts": tuple(ROWS),
    "numpy's numbers": [
        {"load": np.float32(3), "price": np.float64(0.2), "day": np.str_("mon")},
        {"load": np.int64(-3), "price": np.float64("nan"), "day": "sun"},
    ],
    "a frame of pandas' own kinds": pd.DataFrame(
        {
            "load": pd.array([3.0, -3.0], dtype="Float32"),
            "price": pd.array([0.2, pd.NA], dtype="Float64"),
            "day": pd.Categorical(["mon", "sun"]),
        }
    ),
    "a frame of objects with an index": pd.DataFrame(ROWS, index=["x", "y"], dtype=object),
    "columns in another order": pd.DataFrame(ROWS)[["day", "price", "load"]],
}


@pytest.mark.parametrize("rows", FRAMES.values(), ids=FRAMES)
def test_all_that_holds_the_same_rows_gets_the_same_answer(yard: Modelyard, rows: Any) -> None:
    expected = yard.models[MODEL].predict(pd.DataFrame(ROWS))

    answer = yard.models[MODEL].predict(rows)

    assert answer.predictions == expected.predictions
    assert answer.probabilities == expected.probabilities
    assert answer.id != expected.id


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no rows to predict"),
        (pd.DataFrame(ROWS).iloc[:0], "there are no rows to predict"),
        (ROWS[0], "rows must be a list of dicts"),
        ("load", "rows must be a list of dicts"),
        ([1, 2], "rows must be a list of dicts"),
        (7, "rows must be a list of dicts"),
        ([ROWS[0], {"load": 1.0}], "row 1 has other features than row 0"),
        ([ROWS[0] | {"load": float("inf")}], r"\[0\]\.load: must be finite"),
        ([ROWS[0] | {"day": datetime(2026, 1, 1)}], r"\[0\]\.day: must be a number, .* not a datetime"),
        ([ROWS[0] | {"day": pd.NaT}], r"\[0\]\.day: must be a number, .* not a NaTType"),
        (pd.DataFrame([[1.0, 2.0]], columns=["load", "load"]), "two columns of the data frame have one name"),
        ([ROWS[0] | {"lod": 1.0}], "lod"),
        ([{"price": 1.0, "day": "mon"}], "load"),
        ([ROWS[0] | {"load": "much"}], "load"),
        ([ROWS[0] | {"load": None}], "load"),
    ],
)
def test_rows_that_cannot_be_predicted_are_refused_in_words(yard: Modelyard, rows: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        yard.models[MODEL].predict(rows)


def test_a_prediction_is_logged_and_its_labels_reach_drift(yard: Modelyard, tmp_path: Path) -> None:
    model = yard.models[MODEL]
    answer = model.predict(ROWS, event_time=datetime(2026, 3, 1, tzinfo=UTC), routing_key="meter-7")
    keys = [f"{answer.id}/{row}" for row in range(2)]
    eventually(lambda: set(keys) <= set(yard.drift.prediction_ids(MODEL)))

    receipt = model.labels({keys[0]: 1, keys[1]: 0})
    again = model.labels({keys[0]: 1})
    with pytest.raises(Conflict):
        model.labels({keys[1]: 1})

    assert (receipt.accepted, receipt.unchanged) == (2, 0)
    assert (again.accepted, again.unchanged) == (0, 1)
    labelled = pd.read_parquet(yard.drift.labelled(MODEL, receipt.last_seq, tmp_path / "deep" / "rows.parquet"))
    assert len(labelled) == 2
    assert sorted(labelled["load"]) == [-3.0, 3.0]


def test_the_platform_lists_its_models(yard: Modelyard) -> None:
    assert list(yard.models) == [MODEL]
    assert len(yard.models) == 1
    assert repr(yard.models[MODEL]) == "Model('power')"


def test_a_model_that_there_is_not_is_found_out(yard: Modelyard) -> None:
    with pytest.raises(NotFound, match="nobody"):
        yard.models["nobody"].predict(ROWS)
    assert not yard.inference.ready("nobody")


def test_the_signature_can_be_asked(yard: Modelyard) -> None:
    metadata = yard.inference.metadata(MODEL)

    assert [tensor.name for tensor in metadata.inputs] == ["load", "price", "day"]
    assert yard.inference.ready(MODEL)
    assert yard.inference.revision(MODEL) == 1
    assert yard.inference.revision("nobody") is None
    assert yard.inference.health()["models"] == "ok"


def test_without_a_token_one_is_told_to_send_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_TOKEN_FILE", raising=False)
    with Modelyard(inference_url=world.inference_url) as yard, pytest.raises(Unauthenticated, match="bearer token"):
        yard.models[MODEL].predict(ROWS)


def test_a_token_is_read_again_when_it_was_rotated(world: World, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    with Modelyard(inference_url=world.inference_url, token_file=token_file) as yard:
        with pytest.raises(Unauthenticated, match="cannot be read"):
            yard.models[MODEL].predict(ROWS)
        token_file.write_text("wrong")
        with pytest.raises(Unauthenticated):
            yard.models[MODEL].predict(ROWS)
        token_file.write_text(TOKEN)
        assert yard.models[MODEL].predict(ROWS).predictions == [1, 0]


def test_the_address_given_goes_before_the_environment_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("REGISTRY", "TRAINING", "INFERENCE", "DRIFT"):
        monkeypatch.delenv(f"MODELYARD_{name}_URL", raising=False)
    monkeypatch.setenv("MODELYARD_DRIFT_URL", "http://drift.test/")
    with Modelyard(training_url="http://training.test") as yard:
        assert yard.training.base_url == "http://training.test"
        assert yard.drift.base_url == "http://drift.test"
        assert yard.registry.base_url == "http://127.0.0.1:8081"
        assert yard.inference.base_url == "http://127.0.0.1:8080"


def test_rows_are_explained_feature_by_feature(yard: Modelyard, world: World) -> None:
    found = yard.inference.explain(MODEL, pd.DataFrame(ROWS))

    assert (found.method, found.digest) == ("exact", world.digest)
    for row, chance in zip(found.explanations, (1, 0), strict=True):
        assert row.prediction == chance
        assert row.base_value + sum(row.contributions.values()) == pytest.approx(row.value, abs=1e-6)
    with pytest.raises(Invalid, match="no rows to explain"):
        yard.inference.explain(MODEL, [])


def test_a_table_is_scored_as_one_and_a_client_may_not_leave_it_out_of_the_log(yard: Modelyard, world: World) -> None:
    content = pd.DataFrame(ROWS).to_csv(index=False).encode()

    found = yard.inference.score(MODEL, content, "text/csv", version=yard.inference.version(MODEL, "@champion").digest)

    table = pa.ipc.open_stream(found.table).read_all()
    assert (table["predictions"].to_pylist(), found.version) == ([1, 0], world.digest)
    with pytest.raises(Denied, match="takes service or admin"):
        yard.inference.score(MODEL, content, "text/csv", logged=False)
    with pytest.raises(Invalid, match=r"\[0\].load: must be a number"):
        yard.inference.score(MODEL, b"load,day\nx,mon\n", "text/csv")


@pytest.mark.parametrize("reference", ["1", "@champion", "digest"])
def test_a_version_is_found_by_its_number_alias_and_digest(yard: Modelyard, world: World, reference: str) -> None:
    found = yard.inference.version(MODEL, reference.replace("digest", world.digest))

    assert (found.number, found.digest, found.role) == (1, world.digest, "champion")


@pytest.mark.parametrize(("model", "reference"), [(MODEL, "2"), (MODEL, "@candidate"), (MODEL, "@kept"), ("none", "1")])
def test_a_version_that_is_not_loaded_is_not_found(yard: Modelyard, model: str, reference: str) -> None:
    with pytest.raises(NotFound):
        yard.inference.version(model, reference)


def test_what_the_package_exports_is_there_and_says_what_it_is() -> None:
    assert sorted(modelyard_client.__all__) == [
        "DriftClient",
        "InferenceClient",
        "Model",
        "Modelyard",
        "Prediction",
        "RegistryClient",
        "Scored",
        "TrainingClient",
    ]
    for name in modelyard_client.__all__:
        exported = getattr(modelyard_client, name)
        assert inspect.getdoc(exported), name
        for member, value in vars(exported).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"
