"""The law of the dataset digest: about all rows, and about nothing but the rows."""

from __future__ import annotations

import json
import math
import struct
import uuid
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelyard_training.adapters import canonical
from modelyard_training.adapters.canonical import canonicalise

RELAXED = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

COLUMNS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "number": (pa.float64(), st.floats(allow_nan=False)),
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "boolean": (pa.bool_(), st.booleans()),
    "category": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    "time": (
        pa.timestamp("us", tz="UTC"),
        st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    ),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=4))
    arrays, names = [], []
    for index, kind in enumerate(kinds):
        arrow, values = COLUMNS[kind]
        cells = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        arrays.append(pa.array(cells, arrow))
        names.append(f"c{index}")
    return pa.table(arrays, names)


def digest_of(table: pa.Table, folder: Path, **options: Any) -> str:
    source, draft = folder / uuid.uuid4().hex, folder / uuid.uuid4().hex
    pq.write_table(table, source, **options)
    return canonicalise(source, draft, format="parquet").digest


def csv_digest(table: pa.Table, folder: Path) -> str:
    source, draft = folder / uuid.uuid4().hex, folder / uuid.uuid4().hex
    pa_csv.write_csv(table, source)
    return canonicalise(source, draft, format="csv").digest


@RELAXED
@given(
    table=tables(),
    group=st.integers(1, 13),
    compression=st.sampled_from(["none", "snappy", "gzip", "zstd"]),
    dictionary=st.booleans(),
    chunk=st.integers(1, 5),
)
def test_files_do_not_matter(
    table: pa.Table, group: int, compression: str, dictionary: bool, chunk: int, tmp_path: Path
) -> None:
    chunked = pa.Table.from_batches(table.to_batches(max_chunksize=chunk))
    plain = digest_of(table, tmp_path)
    other = digest_of(chunked, tmp_path, row_group_size=group, compression=compression, use_dictionary=dictionary)
    assert other == plain


@RELAXED
@given(table=tables(), batch=st.integers(1, 7))
def test_the_size_of_our_own_batches_does_not_matter(table: pa.Table, batch: int, tmp_path: Path) -> None:
    plain = digest_of(table, tmp_path)
    before = canonical._GROUP_ROWS
    canonical._GROUP_ROWS = batch
    try:
        assert digest_of(table, tmp_path) == plain
    finally:
        canonical._GROUP_ROWS = before


@RELAXED
@given(table=tables(), data=st.data())
def test_changing_any_cell_changes_the_digest(table: pa.Table, data: st.DataObject, tmp_path: Path) -> None:
    column = data.draw(st.integers(0, table.num_columns - 1))
    row = data.draw(st.integers(0, table.num_rows - 1))
    cells = table.column(column).to_pylist()
    arrow = table.schema.field(column).type
    values = next(values for kind_type, values in COLUMNS.values() if kind_type == arrow)
    other = data.draw((st.none() | values).filter(lambda value: not same(value, cells[row])))
    cells[row] = other
    changed = table.set_column(column, table.schema.field(column), pa.array(cells, arrow))
    assert digest_of(changed, tmp_path) != digest_of(table, tmp_path)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@RELAXED
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-1000, 1000),
            st.floats(-1e6, 1e6).map(lambda value: value + 0.5).filter(lambda value: value != int(value)),
            st.booleans(),
            st.text(st.characters(categories=["Ll", "Zs", "Po"]), min_size=1, max_size=8).map(lambda text: f"x{text}"),
            st.integers(0, 10**9),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_csv_and_parquet_of_the_same_values_are_the_same(rows: list[tuple[Any, ...]], tmp_path: Path) -> None:
    start = datetime(1996, 5, 7, tzinfo=UTC)
    table = pa.table(
        {
            "i": [row[0] for row in rows],
            "n": [row[1] for row in rows],
            "b": [row[2] for row in rows],
            "c": [row[3] for row in rows],
            "t": pa.array([start + timedelta(seconds=row[4]) for row in rows], pa.timestamp("us", tz="UTC")),
        }
    )
    assert csv_digest(table, tmp_path) == digest_of(table, tmp_path)


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(lambda t: t.set_column(0, "a", pa.array([1, 2, 3], pa.int8())), id="width of whole numbers"),
        pytest.param(
            lambda t: t.set_column(1, "b", pa.array(["x", "y", "x"]).dictionary_encode()), id="dictionary encoding"
        ),
        pytest.param(lambda t: t.set_column(1, "b", pa.array(["x", "y", "x"], pa.large_string())), id="large strings"),
        pytest.param(lambda t: t.set_column(2, "c", pa.array([0.5, float("nan"), 1.5])), id="NaN for missing"),
        pytest.param(lambda t: t.replace_schema_metadata({"pandas": "{}"}), id="metadata"),
    ],
)
def test_what_is_not_content_does_not_matter(twin: Any, tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "x"], "c": [0.5, None, 1.5]})
    assert digest_of(twin(table), tmp_path) == digest_of(table, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t.slice(0, 2), id="a row less"),
        pytest.param(lambda t: t.take([1, 0, 2]), id="order of rows"),
        pytest.param(lambda t: t.select(["b", "a", "c"]), id="order of columns"),
        pytest.param(lambda t: t.rename_columns(["a", "b", "d"]), id="a name"),
        pytest.param(lambda t: t.set_column(0, "a", pa.array([1.0, 2.0, 3.0])), id="a type"),
        pytest.param(lambda t: t.set_column(1, "b", pa.array(["xy", "", "x"])), id="where texts end"),
        pytest.param(lambda t: t.set_column(1, "b", pa.array([None, "y", "x"])), id="missing instead of empty"),
    ],
)
def test_what_is_content_matters(change: Any, tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["", "xy", "x"], "c": [0.5, None, 1.5]})
    assert digest_of(change(table), tmp_path) != digest_of(table, tmp_path)


def test_the_law_does_not_drift(tmp_path: Path) -> None:
    """A digest that was given once is in manifests and ledgers: it must come out for ever."""
    table = pa.table(
        {
            "a": [1, -2, None],
            "b": ["", "é", None],
            "c": [0.5, None, -0.0],
            "d": [True, None, False],
            "t": pa.array([datetime(1996, 5, 7, tzinfo=UTC), None, datetime(2026, 1, 1, tzinfo=UTC)]),
        }
    )
    assert digest_of(table, tmp_path) == ("sha256:39c85daa9ff40cccdf882cefd4866e7bdc4c8572db3169f489886965fefad542")


def test_the_law_can_be_followed_with_the_standard_library_alone(tmp_path: Path) -> None:
    def column(name: str, kind: str, present: bytes, values: bytes, text: bytes = b"") -> dict[str, str]:
        parts = b"".join(sha256(part).digest() for part in (present, values, text))
        return {"name": name, "type": kind, "digest": sha256(parts).hexdigest()}

    columns = [
        column("i", "integer", b"\1\1\0", struct.pack("<3q", 1, -2, 0)),
        column("n", "number", b"\1\0\1", struct.pack("<3d", 0.5, 0, -0.0)),
        column("c", "category", b"\1\1\0", struct.pack("<3q", 0, 2, 0), "é".encode()),
        column("b", "boolean", b"\1\0\1", b"\1\0\0"),
        column("t", "time", b"\1\0\0", struct.pack("<3q", 831_427_200_000_000, 0, 0)),
    ]
    law = {"columns": columns, "law": "modelyard.dataset/v1", "rows": 3}
    expected = sha256(json.dumps(law, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    table = pa.table(
        {
            "i": [1, -2, None],
            "n": [0.5, None, -0.0],
            "c": ["", "é", None],
            "b": [True, None, False],
            "t": pa.array([datetime(1996, 5, 7, tzinfo=UTC), None, None]),
        }
    )
    assert digest_of(table, tmp_path) == f"sha256:{expected}"


def test_the_canonical_file_holds_the_same_rows(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "y"]})
    source, draft, again = tmp_path / "source", tmp_path / "draft", tmp_path / "again"
    pq.write_table(table, source)
    first = canonicalise(source, draft, format="parquet")
    assert pq.read_table(draft).to_pydict() == table.to_pydict()
    assert canonicalise(draft, again, format="parquet") == first
