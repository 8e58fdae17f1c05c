"""The recorded stream: rows in the order of event time, each with its truth and the moment when it is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from modelyard_common.errors import Invalid, NotFound, Unavailable
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel, parse_manifest

from modelyard_cli.manifests import read_manifests

__all__ = ["Stream", "find_example", "load_stream"]


@dataclass(frozen=True, slots=True)
class Stream:
    """What is replayed.

    Attributes:
        folder: holds the manifest; relative paths start there.
        data: holds history.parquet and stream.parquet.
        history_rows: rows that the first version learns from; row 0 of the stream is this row of the data set.
        features: one dict a row.
        times: event time of each row, ascending.
        truths: the true label of each row.
        history_truths: those of the history, oldest first.
    """

    name: str
    folder: Path
    data: Path
    manifest: ManagedModel
    history_rows: int
    features: Sequence[dict[str, Any]]
    times: Sequence[datetime]
    truths: Sequence[Any]
    history_times: Sequence[datetime]
    history_truths: Sequence[Any]
    delay: timedelta

    def __len__(self) -> int:
        return len(self.truths)

    def manifest_of_history(self) -> ManagedModel:
        """Return the manifest with its data source in the folder that is replayed."""
        document = self.manifest.to_wire()
        document["spec"]["data"]["source"]["uri"] = "history.parquet"
        return parse_manifest(document)

    def naive_answers(self) -> list[Any]:
        """Return the newest label that is known when each row comes: what a model has to beat."""
        known_at = np.array([moment.timestamp() for moment in (*self.history_times, *self.times)])
        truths = [*self.history_truths, *self.truths]
        wanted = np.array([(moment - self.delay).timestamp() for moment in self.times])
        places = np.searchsorted(known_at, wanted, side="right") - 1
        return [truths[place] if place >= 0 else None for place in places]


def find_example(name: str) -> Path:
    """Return the folder of an example, looked for under here and beside the sources.

    Raises:
        NotFound: there is none of that name; lists those that there are.
    """
    roots = [Path.cwd() / "examples", *(parent / "examples" for parent in Path(__file__).resolve().parents)]
    for root in roots:
        if (root / name / "model.yaml").is_file():
            return root / name
    known = sorted({path.parent.name for root in roots for path in root.glob("*/model.yaml")})
    listed = f"; there are {', '.join(known)}" if known else "; run this where the examples folder is"
    raise NotFound(f"there is no example {name!r}{listed}")


def load_stream(example: Path, data: Path | None, limit: int | None) -> Stream:
    """Return an example's stream; fetches its data when it is not there.

    Args:
        data: another folder with history.parquet and stream.parquet, instead of the example's own.
        limit: only so many rows of the stream.

    Raises:
        Unavailable: the data could not be fetched.
        Invalid: the manifest or the data is not as it should be.
    """
    [(manifest, _)] = read_manifests(example / "model.yaml")
    folder = data or example / "data"
    if data is None:
        done = subprocess.run([sys.executable, str(example / "fetch.py")], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"the data of {example.name} could not be fetched: {done.stderr.strip()[-500:]}")
    for name in ("history.parquet", "stream.parquet"):
        if not (folder / name).is_file():
            raise NotFound(f"there is no {folder / name}; this example has no stream to replay")
    spec = manifest.spec.data
    if spec.timestamp is None:
        raise Invalid(f"{manifest.metadata.name}: a stream needs spec.data.timestamp")
    history = pq.read_table(folder / "history.parquet")
    rows = pq.read_table(folder / "stream.parquet").slice(0, limit)
    dropped = [name for name in (spec.target, spec.timestamp, *spec.keys) if name in rows.column_names]
    return Stream(
        name=manifest.metadata.name,
        folder=example,
        data=folder,
        manifest=manifest,
        history_rows=history.num_rows,
        features=rows.drop_columns(dropped).to_pylist(),
        times=rows.column(spec.timestamp).to_pylist(),
        truths=rows.column(spec.target).to_pylist(),
        history_times=history.column(spec.timestamp).to_pylist(),
        history_truths=history.column(spec.target).to_pylist(),
        delay=timedelta(seconds=manifest.spec.label_delay_s),
    )
