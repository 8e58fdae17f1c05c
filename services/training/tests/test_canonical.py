"""Uploads that cannot become a dataset are refused with the field named, and without their values."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modelyard_common.errors import Invalid
from modelyard_training.adapters.canonical import canonicalise
from modelyard_training.domain.datasets import DatasetColumn


def upload(folder: Path, content: Any, format: str) -> Any:
    source = folder / "upload"
    if isinstance(content, bytes):
        source.write_bytes(content)
    else:
        pq.write_table(content, source)
    return canonicalise(source, folder / "draft", format=format)  # type: ignore[arg-type]


TWICE = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])


@pytest.mark.parametrize(
    ("content", "format", "path", "message"),
    [
        pytest.param(b"", "parquet", "body", "is empty", id="empty Parquet"),
        pytest.param(b"", "csv", "body", "is empty", id="empty CSV"),
        pytest.param(b"PAR1 and then rubbish", "parquet", "body", "is not a Parquet file", id="broken Parquet"),
        pytest.param(b"a,b\n", "csv", "body", "has no rows", id="only a header"),
        pytest.param(pa.table({"a": pa.array([], pa.int64())}), "parquet", "body", "has no rows", id="no rows"),
        pytest.param(b"a,b\n1,2\n3\n", "csv", "body", "row 3 has 1 fields, the header has 2", id="ragged CSV"),
        pytest.param(b"a\n\xff\xfe\n", "csv", "columns[0]", "not text in UTF-8", id="not UTF-8"),
        pytest.param(b"a,a\n1,2\n", "csv", "columns[1]", "'a' is the name of columns[0] too", id="duplicate in CSV"),
        pytest.param(TWICE, "parquet", "columns[1]", "'a' is the name of columns[0] too", id="duplicate"),
        pytest.param(b"a,\n1,2\n", "csv", "columns[1]", "the name is empty", id="empty name"),
        pytest.param(b"__label,b\n1,2\n", "csv", "columns[0]", "names that begin with __", id="reserved name"),
        pytest.param(pa.table({"a": [[1], [2]]}), "parquet", "columns[0]", "has the type list<", id="nested"),
        pytest.param(pa.table({"a": [b"x"]}), "parquet", "columns[0]", "has the type binary", id="binary"),
        pytest.param(
            pa.table({"a": pa.array([2**63], pa.uint64())}), "parquet", "columns.a", "do not fit int64", id="too large"
        ),
        pytest.param(
            pa.table({"a": pa.array([1], pa.timestamp("ns"))}), "parquet", "columns.a", "do not fit", id="nanoseconds"
        ),
    ],
)
def test_refused(content: Any, format: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refusal:
        upload(tmp_path, content, format)
    [error] = refusal.value.errors
    assert error.path == path
    assert message in error.message


def test_errors_never_quote_rows(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refusal:
        upload(tmp_path, b"a,b\n1,2\nsecret,4,5\n", "csv")
    assert "secret" not in str(refusal.value) + str(refusal.value.errors)


def test_columns_tell_what_was_seen_in_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": [1.5, None, -2.0],
            "i": [3, 1, 2],
            "c": ["b", "a", "b"],
            "d": [True, False, None],
            "t": [date(2026, 1, 1), None, date(2026, 1, 2)],
        }
    )
    assert upload(tmp_path, table, "parquet").columns == (
        DatasetColumn("n", "number", False, min=-2.0, max=1.5),
        DatasetColumn("i", "integer", True, min=1.0, max=3.0),
        DatasetColumn("c", "category", True, categories=("a", "b")),
        DatasetColumn("d", "boolean", False),
        DatasetColumn("t", "time", False),
    )


def test_a_text_column_with_many_values_shows_none(tmp_path: Path) -> None:
    table = pa.table({"c": [f"id-{number}" for number in range(101)]})
    assert upload(tmp_path, table, "parquet").columns[0].categories is None


def test_an_infinite_number_is_kept_and_not_shown_as_a_bound(tmp_path: Path) -> None:
    made = upload(tmp_path, pa.table({"n": [1.0, float("inf")]}), "parquet")
    assert (made.columns[0].min, made.columns[0].max) == (None, None)
    assert pq.read_table(tmp_path / "draft").column("n").to_pylist() == [1.0, float("inf")]


def test_missing_values_of_a_csv_file(tmp_path: Path) -> None:
    made = upload(tmp_path, b"n,c,t\n1.5,NA,2026-01-01 10:00\nNA,,\n,x,2026-01-02\n", "csv")
    assert pq.read_table(tmp_path / "draft").to_pydict() == {
        "n": [1.5, None, None],
        "c": ["NA", None, "x"],
        "t": [datetime(2026, 1, 1, 10, tzinfo=UTC), None, datetime(2026, 1, 2, tzinfo=UTC)],
    }
    assert [column.required for column in made.columns] == [False, False, False]


def test_the_type_of_a_csv_column_is_that_of_all_its_rows(tmp_path: Path) -> None:
    rows = "\n".join([*(str(number) for number in range(300_000)), "1.5"])
    made = upload(tmp_path, f"a\n{rows}\n".encode(), "csv")
    assert (made.rows, made.columns[0].kind) == (300_001, "number")
