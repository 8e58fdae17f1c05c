"""What a case of an alert is: series under which it fires, what it then says, and series that keep it calm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HTTP", "MODEL", "NM", "Case", "Series"]

Series = Mapping[str, str]
NM = 'namespace="n",model="m"'
MODEL = {"namespace": "n", "model": "m"}
HTTP = "modelyard_http_requests_total"


@dataclass(frozen=True)
class Case:
    """One alert, and one way in which it comes to fire.

    Attributes:
        way: its name, where there are several.
        series: under which it fires at ``at``.
        calm: laid over them one after the other, each keeps it silent.
    """

    alert: str
    series: Series
    at: str
    labels: Mapping[str, str]
    summary: str
    description: str
    calm: tuple[Series, ...]
    severity: str = "warning"
    extra: Mapping[str, str] = field(default_factory=dict)
    way: str = ""

    @property
    def id(self) -> str:
        return "-".join([self.alert, *self.extra.values(), *filter(None, [self.way])])
