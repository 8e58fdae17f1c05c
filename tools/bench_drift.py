"""What drift keeps of a window, counters on frozen edges, beside recomputing from raw rows.

Both see the same rows of real kinds of columns. The counters are fed as the service feeds them, in chunks of its
ingest. The raw side keeps every row and computes the same answers when it is asked: quantile bins and PSI with numpy,
the two-sample Kolmogorov-Smirnov test with SciPy, its reference sorted beforehand. CPU time, the median of rounds in
which both take turns. To take rows in, the raw side only makes arrays of them: no disk, which flatters it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from bench.tables import table
from modelyard_stats.baseline import Baseline, build_baseline
from modelyard_stats.chi_square import chi_square_test
from modelyard_stats.counters import Counters
from modelyard_stats.psi import psi
from modelyard_stats.scoring import WindowScore, score_window
from scipy import stats

Columns = Mapping[str, npt.NDArray[Any]]

NUMBERS, CATEGORIES = 16, 4
REFERENCE_ROWS = 20_000
CHUNK_ROWS = 500
"""As many events as drift moves from its log into windows at a time."""
SETTINGS: dict[str, Any] = {"psi_threshold": 0.2, "significance": 0.01, "min_rows": 200}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 100_000], help="sizes of the window")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(argv)
    reference = make_columns(REFERENCE_ROWS, seed=0)
    baseline = build_baseline(reference, importances={}, predictions=np.linspace(0, 1, REFERENCE_ROWS))
    rows = [measure(baseline, reference, count, given.rounds) for count in given.rows]
    print(f"{NUMBERS} numbers and {CATEGORIES} categories; a reference of {REFERENCE_ROWS} rows")
    heads = ["rows in", "count", "keep", "", "look", "raw look", "", "state", "rows", ""]
    units = ["the window", "us/row", "us/row", "ratio", "ms", "ms", "ratio", "kB", "kB", "ratio"]
    print(table(heads, [units, *rows]))
    print("\ncount, look, state: counters. keep, raw look, rows: raw rows. Ratios: raw rows to counters.")
    print("A look scores the whole window; on counters it does not depend on how many rows there were.")


def make_columns(rows: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Return columns of chance: normal, skewed and heavy-tailed numbers in turn, and categories."""
    g = np.random.default_rng(seed)
    kinds: list[Callable[[], npt.NDArray[Any]]] = [
        lambda: g.normal(size=rows),
        lambda: g.gamma(2, size=rows),
        lambda: g.standard_t(3, size=rows),
    ]
    numbers = {f"number_{place}": kinds[place % len(kinds)]() for place in range(NUMBERS)}
    shares = np.asarray([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    texts = {f"category_{place}": g.choice(list("abcdef"), rows, p=shares) for place in range(CATEGORIES)}
    return numbers | texts


def measure(baseline: Baseline, reference: Columns, rows: int, rounds: int) -> list[str]:
    """Return one line of the table."""
    columns = make_columns(rows, seed=1)
    watched = np.linspace(0, 1, rows)
    raw = Raw(reference)
    sent = {name: values.tolist() for name, values in columns.items()}
    counters = Counters.empty(baseline)
    times: dict[str, list[float]] = {"count": [], "keep": [], "look": [], "raw look": []}
    for _ in range(rounds):
        counters = Counters.empty(baseline)
        times["count"].append(cpu_s(partial(take_in, baseline, counters, sent, watched.tolist())))
        times["keep"].append(cpu_s(partial(keep, sent, rows)))
        times["look"].append(cpu_s(partial(score_window, baseline, counters, **SETTINGS)))
        times["raw look"].append(cpu_s(partial(raw.score, columns)))
    check_same_story(score_window(baseline, counters, **SETTINGS), raw.score(columns))
    took = {what: statistics.median(seconds) for what, seconds in times.items()}
    state = len(json.dumps(counters.to_document()))
    # One byte for a category, as a dictionary encodes it.
    kept = sum(rows if values.dtype.kind == "U" else values.nbytes for values in columns.values())
    return [
        str(rows),
        *(f"{took[what] / rows * 1e6:.1f}" for what in ("count", "keep")),
        f"{took['keep'] / took['count']:.2f}",
        *(f"{took[what] * 1e3:.2f}" for what in ("look", "raw look")),
        f"{took['raw look'] / took['look']:.1f}",
        *(f"{size / 1e3:.0f}" for size in (state, kept)),
        f"{kept / state:.1f}",
    ]


def take_in(baseline: Baseline, counters: Counters, columns: Mapping[str, list[Any]], watched: list[float]) -> None:
    """Count rows in chunks."""
    for start in range(0, len(watched), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        counters.add(baseline, {name: values[part] for name, values in columns.items()}, watched[part])


def keep(columns: Mapping[str, list[Any]], rows: int) -> list[list[npt.NDArray[Any]]]:
    """Return rows as arrays, in chunks: the least that somebody does who keeps rows."""
    starts = range(0, rows, CHUNK_ROWS)
    return [[np.asarray(values[start : start + CHUNK_ROWS]) for values in columns.values()] for start in starts]


class Raw:
    """Keeps the rows of a reference and compares rows with them."""

    def __init__(self, reference: Columns) -> None:
        self._rows = {name: np.sort(values) for name, values in reference.items()}
        self._edges = {
            name: np.quantile(values, np.linspace(0, 1, 11)[1:-1])
            for name, values in reference.items()
            if values.dtype.kind == "f"
        }

    def score(self, columns: Columns) -> dict[str, tuple[float, float]]:
        """Return (psi, p) of each column."""
        return {name: self._one(name, values) for name, values in columns.items()}

    def _one(self, name: str, values: npt.NDArray[Any]) -> tuple[float, float]:
        reference = self._rows[name]
        if (edges := self._edges.get(name)) is not None:
            p, q = (np.bincount(np.searchsorted(edges, side), minlength=10) for side in (reference, values))
            return psi(p, q), float(stats.ks_2samp(reference, values, method="asymp").pvalue)
        kinds = np.unique(np.concatenate([reference, values]))
        p, q = (np.bincount(np.searchsorted(kinds, side), minlength=kinds.size) for side in (reference, values))
        return psi(p, q), chi_square_test(p, q)[1]


def cpu_s(work: Callable[[], Any]) -> float:
    """Return the CPU seconds that work took: other processes of the machine do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def check_same_story(scores: WindowScore, raw: Mapping[str, tuple[float, float]]) -> None:
    """Raise RuntimeError when the two disagree: then they would not do the same work."""
    for feature in scores.features:
        effect, p_value = raw[feature.feature]
        if abs(feature.psi - effect) > 0.02 or (feature.p_value < 1e-4) != (p_value < 1e-4):
            raise RuntimeError(f"{feature.feature}: counters say {feature.psi:.3f}, rows say {effect:.3f}")


if __name__ == "__main__":
    main()
