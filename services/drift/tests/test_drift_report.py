"""The report as a page: what it says first, that it needs nothing else, and that no data becomes markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from drift_fakes import MODEL, V1, World
from modelyard_drift.adapters.pages import report_page
from modelyard_drift.adapters.pages.charts import bars, heat_map, trend
from modelyard_stats.baseline import build_baseline

EVIL = "<script>alert('x')</script>\"'&{{ 7919*6841 }}"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: its text by element, and every reason to distrust it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def feature(name: str, psi: float = 0.01, *, keys: int = 0, matters: bool = True) -> dict[str, Any]:
    return {
        "feature": name,
        "psi": psi,
        "p_value": 0.2,
        "q_value": 0.3,
        "keys": keys,
        "importance": 0.5,
        "matters": matters,
        "drifted": keys == 2,
        "missing": 0.0,
        "unseen": 0.0,
        "out_of_range": 0.0,
    }


def performance(value: float = 0.75, version: str = V1) -> dict[str, Any]:
    return {
        "version": version,
        "metric": "accuracy",
        "value": value,
        "low": value - 0.05,
        "high": value + 0.05,
        "rows": 400,
    }


def episode(window: str, *features: str, decision: str = "command", reason: str = "high severity") -> dict[str, Any]:
    verdict = {"decision": decision, "reason": reason, "run": "run-7" if decision == "command" else None}
    return {
        "opened_window": window,
        "opened_at": "2026-01-01T00:00:00Z",
        "features": list(features),
        "severity": "high",
        "closed_at": None,
        "closed_by": "",
        "windows": 1,
        "decision": verdict,
    }


def report(*features: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A report of the third window."""
    window: dict[str, Any] = {
        "id": "w2",
        "index": 2,
        "model": MODEL,
        "reference": V1,
        "state": "scored",
        "closed_by": "rows",
        "rows": 500,
        "first_row": 1000,
        "event_time_from": "2026-01-01T00:00:00Z",
        "event_time_until": "2026-01-02T00:00:00Z",
        "features": list(features),
        "prediction": None,
        "quality": [],
        "severity": "none",
        "performance": [],
    }
    window |= {name: value for name, value in changes.items() if name in window}
    whole = {
        "format": "modelyard.drift-report/v1",
        "window": window,
        "reference_rows": 2000,
        "reference_metrics": {"accuracy": 0.8},
        "distributions": {
            one["feature"]: {"kind": "numeric", "bars": ["≤ 1", "> 1"], "reference": [0.5, 0.5], "window": [0.2, 0.8]}
            for one in features
        },
        "trend": [],
        "episodes": [],
    }
    return whole | {name: value for name, value in changes.items() if name in whole}


def read(document: dict[str, Any]) -> Page:
    return Page(report_page(document))


class TestVerdict:
    @pytest.mark.parametrize(
        ("document", "badge", "sentence"),
        [
            pytest.param(report(feature("a")), "no drift", "The data looks like the reference.", id="none"),
            pytest.param(
                report(feature("a", keys=1), severity="low"), "low", "on one of the two keys only", id="one key"
            ),
            pytest.param(
                report(feature("a", 0.4, keys=2, matters=False), severity="low"),
                "low",
                "Drift on what matters little to the model: a.",
                id="harmless",
            ),
            pytest.param(
                report(
                    feature("a", 0.4, keys=2),
                    feature("b", 0.9, keys=2),
                    feature("c", 2, keys=2, matters=False),
                    severity="high",
                ),
                "high",
                "Drift on what matters to the model: b, a. Drift on what matters little to the model: c.",
                id="harmful first, gravest first",
            ),
            pytest.param(
                report(feature("a"), severity="high", prediction=feature("prediction", keys=2)),
                "high",
                "The model's own answers have shifted.",
                id="prediction",
            ),
            pytest.param(
                report(feature("a", keys=2), severity="critical", performance=[performance(0.5)]),
                "critical",
                "The model performs below its floor. Drift on what matters to the model: a.",
                id="performance",
            ),
            pytest.param(report(state="insufficient"), "insufficient", "not the same as no drift", id="too few rows"),
            pytest.param(
                report(*(feature(f"f{i}", 1 + i, keys=2) for i in range(8)), severity="high"),
                "high",
                "f7, f6, f5, f4, f3 and 3 more.",
                id="many",
            ),
        ],
    )
    def test_it_comes_before_all_else(self, document: dict[str, Any], badge: str, sentence: str) -> None:
        text = read(document).text
        assert sentence in text
        head = text[: text.index("Rows")]
        assert badge in head and sentence in head

    def test_it_says_how_the_model_did_beside_how_it_was_trained(self) -> None:
        text = read(report(performance=[performance()])).text
        assert "accuracy 0.750 (0.700 to 0.800) on 400 labelled rows; 0.800 when the reference was trained." in text

    def test_it_says_what_was_done_about_what_this_window_opened(self) -> None:
        episodes = [episode("w2", "a"), episode("w2", "b", decision="cooldown", reason="too early"), episode("w1", "c")]
        text = read(report(feature("a"), episodes=episodes)).text
        assert "Training was commanded for a as run-7." in text
        assert "No training was commanded for b: too early." in text
        assert "commanded for c" not in text


class TestTables:
    def test_features_are_ranked_by_effect_below_the_prediction(self) -> None:
        features = [feature("small", 0.01), feature("large", 3.0, keys=2), feature("middle", 0.15, keys=1)]
        page = read(report(*features, severity="high", prediction=feature("prediction", 0.05)))
        rows = [row for row in page.cells if len(row) == 10][1:]
        assert [row[0] for row in rows] == ["predictionthe model's own answers", "large", "middle", "small"]
        assert [row[4] for row in rows] == ["0 of 2", "2 of 2", "1 of 2", "0 of 2"]
        assert [row[9].strip() for row in rows] == ["", "drifted", "", ""]

    def test_a_metric_stands_with_its_interval(self) -> None:
        page = read(report(performance=[performance()]))
        assert [V1[:19], "accuracy", "0.7500", "0.7000 to 0.8000", "400", "0.8000"] in page.cells

    def test_a_window_without_labels_says_so(self) -> None:
        assert "No labels of this window's rows have come yet." in read(report(feature("a"))).text

    def test_episodes_that_opened_later_are_not_foretold(self) -> None:
        text = read(report(episodes=[episode("w3", "later"), episode("w1", "earlier")])).text
        assert "earlier" in text
        assert "later" not in text

    def test_every_fault_of_the_data_is_shown(self) -> None:
        text = read(report(quality=["a: 50.0% of its values are missing", "b: 3 values are text"])).text
        assert "a: 50.0% of its values are missing" in text and "b: 3 values are text" in text


class TestDrawings:
    def test_bars_keep_the_proportions_of_both_sides_on_one_scale(self) -> None:
        chart = bars({"bars": ["x", "y"], "reference": [0.5, 0.5], "window": [1.0, 0.0]}, width=100, height=104)
        assert [(bar.kind, bar.height) for bar in chart.bars] == [
            ("reference", 50.0),
            ("window", 100.0),
            ("reference", 50.0),
            ("window", 0.0),
        ]
        assert all(bar.x >= 0 and bar.x + bar.width <= 100 and bar.y + bar.height == 104 for bar in chart.bars)

    def test_a_window_with_few_bars_to_show_is_drawn_too(self) -> None:
        assert bars({"bars": ["all"], "reference": [0.0], "window": [0.0]}).bars[0].height == 0.0
        assert bars({"bars": [], "reference": [], "window": []}).bars == ()

    def test_a_trend_leaves_out_windows_without_labels(self) -> None:
        windows = [
            {"window": f"w{i}", "severity": "none", "performance": [performance(0.5 + i / 10)] if i != 1 else []}
            for i in range(4)
        ]
        course = trend(windows, "accuracy")
        assert course is not None
        assert [dot.title[:2] for dot in course.dots] == ["w0", "w2", "w3"]
        assert [dot.y for dot in course.dots] == sorted((dot.y for dot in course.dots), reverse=True)
        assert trend(windows[:2], "accuracy") is None
        assert trend(windows, "rmse") is None

    def test_a_heat_map_is_darker_where_more_drifted(self) -> None:
        windows = [
            {"window": "w0", "psi": {"a": 0.0}},
            {"window": "w1", "psi": {"a": 0.25}},
            {"window": "w2", "psi": {"a": 9.0}},
        ]
        chart = heat_map(windows, ["a", "gone"])
        assert chart is not None
        assert (chart.names, [cell.opacity for cell in chart.cells]) == (("a",), [0.0, 0.5, 1.0])

    def test_more_distributions_than_a_screen_holds_are_a_click_away(self) -> None:
        page = read(report(*(feature(f"f{i}") for i in range(30))))
        assert (page.tags.count("figure"), page.tags.count("details")) == (30, 1)
        assert "18 more" in page.text


class TestSafety:
    def test_no_name_or_reason_becomes_markup(self) -> None:
        document = report(
            feature(EVIL, 1.0, keys=2),
            severity="high",
            quality=[f"{EVIL}: 3 values are text"],
            performance=[performance()],
            episodes=[episode("w2", EVIL, reason=EVIL)],
            trend=[
                {"window": f"w{i}", "severity": "none", "psi": {EVIL: 1.0}, "performance": [performance()]}
                for i in range(3)
            ],
        )
        document["distributions"][EVIL]["bars"] = [EVIL, EVIL]
        page = read(document)
        assert "script" not in page.tags
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert page.text.count(EVIL) >= 6
        assert str(7919 * 6841) not in page.text

    def test_features_and_categories_of_a_stranger_stay_text(self, make_world: Callable[..., World]) -> None:
        world = make_world()
        world.registry.baselines[V1] = build_baseline(
            {EVIL: [EVIL, "other"] * 500}, importances={EVIL: 1.0}, predictions=[i / 1000 for i in range(1000)]
        ).to_json()
        events = world.rows(200)
        for row in events:
            row["features"] = {EVIL: EVIL}
        world.send(events)
        answer = world.client.get(f"/v1/models/{MODEL}/reports/w1", params={"format": "html"})
        page = Page(answer.text)
        assert "script" not in page.tags
        assert f"Drift on what matters to the model: {EVIL}." in page.text

    def test_the_page_needs_nothing_from_elsewhere(self) -> None:
        text = report_page(report(feature("a", keys=2), severity="high", performance=[performance()]))
        page = Page(text)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name in {"src", "href", "srcset"}]
        assert "url(" not in text and "@import" not in text and "//" not in text

    def test_it_is_made_for_light_dark_and_paper(self) -> None:
        text = report_page(report())
        assert "prefers-color-scheme: dark" in text and "@media print" in text
