"""Fetch the electricity market of New South Wales (ELEC2) and write it as Parquet.

    python examples/electricity/fetch.py [FOLDER]

Writes history.parquet (the first 12,000 half-hours) and stream.parquet (the rest) into FOLDER, ``data`` beside this
script when left out. Does nothing when both are there.
"""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wheels import SCIKIT_MULTIFLOW, fetch_member

MEMBER = "skmultiflow/data/datasets/elec.csv"
SHA256 = "ebdfe5480ae25a43a7d054286135e3a9484697a2850d5158a333b1578c28bb97"
FIRST = datetime(1996, 5, 7, tzinfo=UTC)
HISTORY_ROWS = 12_000
NAMES = {
    "feat_1": "period",
    "feat_2": "nsw_price",
    "feat_3": "nsw_demand",
    "feat_4": "vic_price",
    "feat_5": "vic_demand",
    "feat_6": "transfer",
    "target": "up",
}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "data"
    history, stream = folder / "history.parquet", folder / "stream.parquet"
    if history.exists() and stream.exists():
        return
    raw = pd.read_csv(io.BytesIO(fetch_member(SCIKIT_MULTIFLOW, MEMBER, SHA256)))
    frame = raw[list(NAMES)].rename(columns=NAMES)
    frame["up"] = frame["up"].astype(int)
    # The rows are half-hours without a gap; the file numbers them within the day and leaves the date out.
    frame.insert(0, "at", pd.date_range(FIRST, periods=len(frame), freq="30min"))
    folder.mkdir(parents=True, exist_ok=True)
    frame.iloc[:HISTORY_ROWS].to_parquet(history, index=False)
    frame.iloc[HISTORY_ROWS:].to_parquet(stream, index=False)
    sys.stderr.write(f"wrote {HISTORY_ROWS} and {len(frame) - HISTORY_ROWS} rows to {folder}\n")


if __name__ == "__main__":
    main()
