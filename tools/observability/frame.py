"""What all dashboards share: variables, annotations, links, time; and their identity, which never changes."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from tools.observability.panels import DATASOURCE

__all__ = ["MODEL", "NAMESPACE", "VERSION", "Frame"]

NAMESPACE = 'namespace=~"$namespace"'
MODEL = f'{NAMESPACE}, model=~"$model"'
VERSION = f'{MODEL}, version=~"$version"'
_TAG = "modelyard"


class Frame:
    """Builds one dashboard, row by row.

    Args:
        uid: its identity in Grafana; links and bookmarks hold on to it.
        by_model: whether what it shows can be narrowed to a model.
        by_version: and to a version.
    """

    def __init__(self, uid: str, title: str, description: str, *, by_model: bool = True, by_version: bool = False):
        self.uid = uid
        self._by_model = by_model
        self._dashboard = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([_TAG])
            .timezone("utc")
            .readonly()
            .refresh("30s")
            .time("now-3h", "now")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
            .with_variable(_choice("namespace", "Namespace", 'label_values(up{job="modelyard-registry"}, namespace)'))
        )
        if by_model:
            models = f"label_values(modelyard_registry_routing_revision{{{NAMESPACE}}}, model)"
            self._dashboard.with_variable(_choice("model", "Model", models))
        if by_version:
            versions = f"label_values(modelyard_inference_requests_total{{{MODEL}}}, version)"
            self._dashboard.with_variable(_choice("version", "Version", versions))
        self._dashboard.link(
            dashboard.DashboardLink("Modelyard")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .include_vars(True)
            .keep_time(True)
        )

    def row(self, title: str, *panels: Any) -> Frame:
        """Add a row with its panels."""
        self._dashboard.with_row(dashboard.Row(title))
        for panel in panels:
            self._dashboard.with_panel(panel)
        return self

    def document(self) -> dict[str, Any]:
        """Return the dashboard as Grafana imports it."""
        document: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(self._dashboard.build()))
        for place, panel in enumerate(document["panels"], 1):
            panel["id"] = place
        _forget_what_grafana_forgot(document)
        document["annotations"] = {"list": _annotations(MODEL if self._by_model else NAMESPACE)}
        return document


def _forget_what_grafana_forgot(document: dict[str, Any]) -> None:
    """Leave out what the builders write for older releases: steps of intervals, which we have not; feet of tables."""
    for variable in document["templating"]["list"]:
        for name in ("auto", "auto_count", "auto_min"):
            variable.pop(name, None)
    for panel in document["panels"]:
        panel.get("options", {}).pop("footer", None)


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        # Also matches series without the label, which is what a Prometheus without Kubernetes has.
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def _annotations(selected: str) -> list[dict[str, Any]]:
    reigns = "max by (namespace, model, kind) (modelyard_registry_champion_since_seconds"
    episodes = f"sum by (namespace, model) (modelyard_drift_open_episodes_count{{{selected}}}) > 0"
    return [
        _annotation("Promotions", "green", f'{reigns}{{{selected}, kind!="rollback"}}) * 1000', moment=True),
        _annotation("Rollbacks", "red", f'{reigns}{{{selected}, kind="rollback"}}) * 1000', moment=True),
        _annotation("Episodes", "orange", episodes, moment=False),
    ]


def _annotation(name: str, colour: str, expr: str, *, moment: bool) -> dict[str, Any]:
    """Return an annotation: a moment that the value is, in milliseconds, or the time in which there is one.

    The builders do not know ``useValueForTime``.
    """
    return {
        "name": name,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "iconColor": colour,
        "expr": expr,
        "step": "30s",
        "titleFormat": f"{name[:-1]} of {{{{model}}}}",
        "textFormat": "{{kind}}" if moment else "",
        "useValueForTime": moment,
    }
