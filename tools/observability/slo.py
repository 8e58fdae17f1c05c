"""Objectives from one file, and the rules that follow from them.

An error budget that is spent at rate 1 lasts exactly the window. An alert looks at a long window, so that it means
something, and at a short one, so that it ends soon after the trouble does. Rates, windows and severities are those of
the SRE workbook, chapter 5 (table 5-8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from modelyard_contracts.durations import duration_s
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

__all__ = ["BURNS", "FILE", "Burn", "Objective", "Objectives", "burn_alert_name", "load", "ratio", "recording_rules"]

FILE = Path(__file__).parents[2] / "deploy/observability/slo.yaml"


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows.

    Attributes:
        rate: how many times faster than it lasts the budget is spent.
        wait: how long both windows must say so.
    """

    severity: str
    rate: float
    long: str
    short: str
    wait: str


BURNS = (
    Burn("critical", 14.4, "1h", "5m", "2m"),
    Burn("critical", 6, "6h", "30m", "15m"),
    Burn("warning", 3, "1d", "2h", "1h"),
    Burn("warning", 1, "3d", "6h", "3h"),
)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


Counters = Annotated[tuple[str, ...], Field(min_length=1)]


class Objective(_Part):
    """One promise: of all events a share is good."""

    name: str = Field(pattern=r"^[a-z]+(-[a-z]+)*$")
    title: str
    promise: str
    objective: float = Field(gt=0, lt=1)
    total: Counters
    """Selectors of the counters of all events."""
    bad: Counters | None = None
    good: Counters | None = None
    min_requests: int = Field(ge=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.bad is None) == (self.good is None):
            raise ValueError("give exactly one of bad and good")
        return self

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective, 9)

    @property
    def within_s(self) -> float:
        """The time within which a good event ends, in seconds. Raise ValueError where none is promised."""
        bounds = {bound for counter in self.good or () for bound in re.findall(r'\ble="([^"]+)"', counter)}
        if len(bounds) != 1:
            raise ValueError(f"{self.name} promises no one time: its good counters have le={sorted(bounds)}")
        return float(bounds.pop())

    def error_ratio(self, window: str) -> str:
        """Return PromQL for the share of bad events over a window, by namespace."""
        total = f"sum by (namespace) ({over('rate', self.total, window)})"
        if self.good is not None:
            return f"1 - sum by (namespace) ({over('rate', self.good, window)})\n/ {total}"
        # While nothing was bad there is no series that says so.
        bad = f"sum by (namespace) ({over('rate', self.bad or (), window)})"
        return f"({bad} or 0 * {total})\n/ {total}"


class Objectives(_Part):
    """The file."""

    window: str
    objectives: tuple[Objective, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _longer_than_its_alerts(self) -> Self:
        if duration_s(self.window) < duration_s(WINDOWS[-1]):
            raise ValueError(f"window must be {WINDOWS[-1]} or longer: alerts look back so far")
        return self


def over(function: str, counters: Iterable[str], window: str) -> str:
    """Return a function of several counters over a window, as one set of series."""
    return " or ".join(f"{function}({counter}[{window}])" for counter in counters)


def load(path: Path = FILE) -> Objectives:
    """Return the objectives. Raise ValueError, naming the field, when the file is not as it should be."""
    return Objectives.model_validate(yaml.safe_load(path.read_text()))


def ratio(name: str, window: str) -> str:
    """Return the series in which an objective's error ratio is recorded."""
    return f'namespace:slo_errors:ratio_rate{window}{{slo="{name}"}}'


def burn_alert_name(objective: Objective) -> str:
    """Return how the alert about an objective is called."""
    return "".join(part.capitalize() for part in objective.name.split("-")) + "Burns"


def recording_rules(objectives: Objectives) -> list[dict[str, Any]]:
    """Return what is computed ahead: error ratios by window, and what is left of the budget."""
    rules: list[dict[str, Any]] = []
    for one in objectives.objectives:
        labels = {"slo": one.name}
        for window in (*WINDOWS, objectives.window):
            record = f"namespace:slo_errors:ratio_rate{window}"
            rules.append({"record": record, "expr": one.error_ratio(window), "labels": labels})
        left = f"1 - {ratio(one.name, objectives.window)} / {one.budget:g}"
        rules.append({"record": "namespace:slo_budget:remaining_ratio", "expr": left, "labels": labels})
    return rules


def burn_expr(objective: Objective, burn: Burn) -> str:
    """Return when a burn alert fires: both windows say so, and there was enough to judge by."""
    limit = f"{burn.rate:g} * {objective.budget:g}"
    long, short = ratio(objective.name, burn.long), ratio(objective.name, burn.short)
    enough = f"sum by (namespace) ({over('increase', objective.total, burn.long)}) >= {objective.min_requests}"
    return f"{long} > {limit}\nand on (namespace)\n{short} > {limit}\nand on (namespace)\n{enough}"
