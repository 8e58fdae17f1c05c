"""Write the diabetes data of scikit-learn (442 patients, ten measurements) as CSV.

    python examples/diabetes/fetch.py [FOLDER]

Writes diabetes.csv into FOLDER, ``data`` beside this script when left out. Needs no network: the data comes with
scikit-learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sklearn.datasets import load_diabetes


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "data"
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "diabetes.csv", index=False)
    sys.stderr.write(f"wrote {len(frame)} rows to {folder / 'diabetes.csv'}\n")


if __name__ == "__main__":
    main()
