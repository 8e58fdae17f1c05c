"""The table of metrics holds what there is, and nothing that is asked for is missing from it."""

from __future__ import annotations

import functools
import re

import pytest

from tests.observability.expressions import every_expression, recorded, selectors
from tools.observability.metrics_table import SERVICES, Metric, metrics_of, process_metrics

PROMETHEUS = {"namespace", "job", "instance"}
"""Labels of the place, which Prometheus adds."""
ITS_OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}


@functools.cache
def known() -> dict[str, Metric]:
    found = [*metrics_of("common"), *process_metrics(), *(one for name in SERVICES for one in metrics_of(name))]
    return {metric.name: metric for metric in found}


def test_the_table_has_every_service_and_no_metric_twice() -> None:
    by_service = {name: [metric.name for metric in metrics_of(name)] for name in ("common", *SERVICES)}
    names = [name for found in by_service.values() for name in found]

    assert all(by_service.values())
    assert len(names) == len(set(names))
    assert all(name.startswith(f"modelyard_{service}_") for service in SERVICES for name in by_service[service])


@pytest.mark.parametrize("metric", known().values(), ids=lambda metric: metric.name)
def test_a_metric_says_what_it_means_and_in_which_unit(metric: Metric) -> None:
    assert metric.unit
    assert len(metric.meaning.split()) > 1
    assert metric.kind in ("counter", "gauge", "histogram")
    assert metric.name.endswith("_total") == (metric.kind == "counter")


@pytest.mark.parametrize("place", every_expression())
def test_every_metric_and_label_that_is_asked_for_exists(place: str) -> None:
    metrics = known()
    asked = selectors(every_expression()[place])

    assert asked, "nothing is asked"
    for selector in asked:
        if selector.metric in recorded():
            assert selector.labels <= PROMETHEUS | {"model", "slo"}
            continue
        if selector.metric in ITS_OWN:
            assert selector.labels <= PROMETHEUS | ITS_OWN[selector.metric]
            continue
        plain = re.sub(r"_(bucket|sum|count)$", "", selector.metric)
        metric = metrics.get(selector.metric) or metrics[plain]
        assert (plain == selector.metric or selector.metric in metrics) or metric.kind == "histogram"
        assert selector.labels <= PROMETHEUS | set(metric.labels) | ({"le"} if metric.kind == "histogram" else set())


def test_an_expression_is_read_as_prometheus_reads_it() -> None:
    expr = (
        'sum by (model) (rate(modelyard_x_total{model=~"a|{b", outcome!="up"}[5m])) / on (namespace) '
        'group_left () count(up{job="modelyard-inference"} == 1) > model:data_age:seconds * 2'
    )

    found = {selector.metric: selector.labels for selector in selectors(expr.replace("|{b", ""))}

    assert found == {"modelyard_x_total": {"model", "outcome"}, "up": {"job"}, "model:data_age:seconds": set()}
