"""A real inference server with one model, and tables for it: for the tests of `modelyard predict` into a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
from cli_stage import NOBODY, Said, modelyard

from services.inference.tests.inference_fakes import Platform, a_platform, a_server, make_bundle

MODEL = "power"


@dataclass(frozen=True)
class Yard:
    """A platform whose inference is real, and the command against it."""

    platform: Platform
    url: str
    digests: tuple[str, str]

    def __call__(self, *words: object, stdin: str = "") -> Said:
        away = ("--registry-url", NOBODY, "--drift-url", NOBODY, "--training-url", NOBODY)
        return modelyard("--inference-url", self.url, *away, *words, stdin=stdin)


@contextmanager
def a_yard(folder: Path, **settings: Any) -> Iterator[Yard]:
    """Serve a champion; a second version is known and not loaded."""
    bundles = make_bundle(folder / "one", seed=1), make_bundle(folder / "two", seed=2)
    with a_platform(folder / "data") as platform, a_server(platform, bundles, **settings) as http:
        yield Yard(platform, str(http.base_url), (str(bundles[0].digest), str(bundles[1].digest)))


def rows(count: int, seed: int = 0) -> pa.Table:
    """Return rows for the model, with an id and a target that are no features."""
    rng = np.random.default_rng(seed)
    price = rng.normal(size=count)
    return pa.table(
        {
            "id": pa.array(range(count), pa.int64()),
            "load": pa.array(rng.normal(size=count)),
            "price": pa.array(price, mask=rng.random(count) < 0.2),
            "day": pa.array(rng.choice(["mon", "tue", "sun"], count)).dictionary_encode(),
            "up": pa.array(rng.integers(0, 2, count)),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    """Write a table in the format of the name; the batches and row groups are of odd sizes."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=37)
    elif path.suffix == ".csv":
        pacsv.write_csv(pa.table({name: _decoded(table[name]) for name in table.column_names}), path)
    else:
        opened = ipc.new_file if path.suffix == ".arrow" else ipc.new_stream
        with opened(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=41)
    return path


def read(path: Path) -> pa.Table:
    """Return a table that the command wrote."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".csv":
        return pacsv.read_csv(path)
    return ipc.open_file(pa.OSFile(str(path))).read_all()


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
