"""The drift service's API: labels, labelled rows, windows, episodes, decisions, comparisons, status."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modelyard_contracts.base import Request, StoredText, UtcTime, View
from modelyard_contracts.events_v1 import FeatureValue
from modelyard_contracts.refs import DigestText, ModelName

__all__ = [
    "Comparison",
    "DecisionView",
    "DriftStatus",
    "EpisodeView",
    "FeatureDrift",
    "Label",
    "LabelBatch",
    "LabelReceipt",
    "PerformanceView",
    "Side",
    "WindowView",
]

LABELLED_COLUMNS = ("prediction_id", "event_time", "label_seq", "label", "prediction", "version")
"""The columns of ``GET /v1/models/{m}/labelled`` that stand beside the features, each prefixed with ``__``."""


class Label(Request):
    """The truth about one predicted row."""

    prediction_id: StoredText = Field(min_length=1, max_length=198)
    """``<id>/<row>``; without a row, row 0."""
    value: FeatureValue
    revision: int = Field(0, ge=0, lt=2**31)
    """A correction has a higher revision; the same revision with another value is refused (409)."""


class LabelBatch(Request):
    """``POST /v1/models/{m}/labels``: all or nothing; a 2xx means committed."""

    labels: tuple[Label, ...] = Field(min_length=1, max_length=10_000)


class LabelReceipt(View):
    """What became of a batch of labels."""

    accepted: int
    unchanged: int
    waiting: int
    """Their prediction is not here yet; they are kept and joined when it comes."""
    last_seq: int


class FeatureDrift(View):
    """One feature (or the prediction) in one window."""

    feature: str
    psi: float
    p_value: float
    q_value: float
    """p corrected for the number of features (Benjamini-Hochberg)."""
    keys: int = Field(ge=0, le=2)
    """How many of the two keys turned: effect size, significance."""
    importance: float | None = None
    """Share of the reference model's permutation importance; None where it could not be measured (constant)."""
    matters: bool
    drifted: bool
    missing: float = 0.0
    unseen: float = 0.0
    """Share of values outside the categories known to the reference."""
    out_of_range: float = 0.0


class PerformanceView(View):
    """A metric of one version over one window, with its labels."""

    version: DigestText
    metric: str
    value: float
    low: float
    high: float
    rows: int


class WindowView(View):
    """A closed (or the open) window of a model."""

    id: str
    model: ModelName
    index: int
    reference: DigestText
    """The champion whose frozen edges were counted on."""
    state: Literal["open", "scored", "insufficient"]
    closed_by: Literal["rows", "time", "promotion", ""] = ""
    rows: int
    first_seq: int
    last_seq: int
    first_row: int
    """Number of the first request of this window among all requests of the model, from 0."""
    event_time_from: UtcTime | None = None
    event_time_until: UtcTime | None = None
    features: tuple[FeatureDrift, ...] = ()
    prediction: FeatureDrift | None = None
    quality: tuple[str, ...] = ()
    """Quality faults in words; with any of them drift commands no training."""
    severity: Literal["none", "low", "high", "critical"] = "none"
    performance: tuple[PerformanceView, ...] = ()


class DecisionView(View):
    """What was decided about an episode, with the reason; kept for ever."""

    id: str
    model: ModelName
    episode: str | None = None
    at_event_time: UtcTime
    decision: Literal["command", "cooldown", "budget", "below_severity", "quality", "no_policy", "paused", "off"]
    trigger: Literal["drift", "performance"]
    reason: str
    run: str | None = None
    command: Literal["none", "pending", "delivered", "refused"] = "none"


class EpisodeView(View):
    """A lasting change: keyed by model, reference version and the set of drifted features."""

    id: str
    model: ModelName
    reference: DigestText
    features: tuple[str, ...]
    severity: Literal["low", "high", "critical"]
    opened_window: str
    opened_row: int
    """Number of the last request of the window that opened it."""
    window_first_row: int
    opened_at: UtcTime
    closed_at: UtcTime | None = None
    closed_by: str = ""
    windows: int = 1
    decision: DecisionView | None = None


class Side(View):
    """One version in a comparison."""

    version: DigestText
    responses: int
    errors: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    mean_score: float | None = None
    performance: PerformanceView | None = None


class Comparison(View):
    """Candidate and champion within one routing revision: ``…/comparison?revision=N``."""

    model: ModelName
    revision: int
    champion: Side | None = None
    candidate: Side | None = None
    shadow: bool = False
    pairs: int = 0
    """Rows that both answered (shadow copies)."""
    disagreement: float | None = None
    prediction_shift: float | None = None
    """PSI between the two versions' predictions."""
    as_of_seq: int


class DriftStatus(View):
    """Where drift stands for one model."""

    model: ModelName
    reference: DigestText | None = None
    requests: int
    """Rows answered (never shadow copies)."""
    ingest_seq: int
    processed_seq: int
    """Windows have seen everything up to here."""
    label_seq: int
    folded_label_seq: int = 0
    """The performance of windows has seen every label up to here."""
    labels: int
    labels_waiting: int
    labels_missing: int
    """Rows whose label is later than ``labelDelay``."""
    watermark: UtcTime | None = None
    severity: Literal["none", "low", "high", "critical", "unknown"] = "unknown"
    open_window: WindowView | None = None
    last_window: WindowView | None = None
    open_episodes: tuple[EpisodeView, ...] = ()
    commands: int = 0
    """Retrain commands decided so far."""
    pending_commands: int = 0
    """Those of them that are not yet delivered to training."""
    performance: tuple[PerformanceView, ...] = ()
    note: str = ""
    """What keeps processing back, if anything does."""
    detail: dict[str, Any] = {}
