"""Fetch the SEA stream: one concept throughout, so that nothing drifts. A control.

    python examples/sea/fetch.py [FOLDER]

Writes history.parquet (the first 10,000 rows) and stream.parquet (the rest) into FOLDER, ``data`` beside this script
when left out. The rows carry no time; they are given one a minute.
"""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wheels import SCIKIT_MULTIFLOW, fetch_member

MEMBER = "skmultiflow/data/datasets/sea_stream.csv"
SHA256 = "d5d55f2ebb4c69f0c6dc26e6d1228e0b689a11706af94b8c41ed1c9d0669bf13"
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
HISTORY_ROWS = 10_000


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "data"
    history, stream = folder / "history.parquet", folder / "stream.parquet"
    if history.exists() and stream.exists():
        return
    frame = pd.read_csv(io.BytesIO(fetch_member(SCIKIT_MULTIFLOW, MEMBER, SHA256)))
    frame = frame.rename(columns={"class": "inside"})
    frame["inside"] = frame["inside"].astype(int)
    frame.insert(0, "at", pd.date_range(FIRST, periods=len(frame), freq="1min"))
    folder.mkdir(parents=True, exist_ok=True)
    frame.iloc[:HISTORY_ROWS].to_parquet(history, index=False)
    frame.iloc[HISTORY_ROWS:].to_parquet(stream, index=False)
    sys.stderr.write(f"wrote {HISTORY_ROWS} and {len(frame) - HISTORY_ROWS} rows to {folder}\n")


if __name__ == "__main__":
    main()
