"""The page of performance says what its records say, and its records are whole."""

from __future__ import annotations

from pathlib import Path

from bench.inference.contenders import CONTENDERS
from bench.inference.document import renewed
from bench.inference.goals import GOALS, judge
from bench.inference.record import Record
from bench.inference.report import reasons
from bench.inference.variants import VARIANTS

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "performance"


def test_the_page_is_made_from_its_records() -> None:
    page = (DOCS / "performance.md").read_text()

    assert renewed(page, DOCS) == page


def test_the_record_holds_every_contender_that_was_not_left_out_with_a_reason() -> None:
    record = Record.read(RECORDS / "inference.json")

    measured = {cell.server for cell in record.cells if cell.counts}
    assert measured | record.missing.keys() == {contender.key for contender in CONTENDERS}


def test_a_goal_that_was_not_measured_has_its_reason_on_the_page() -> None:
    record, page = Record.read(RECORDS / "inference.json"), (DOCS / "performance.md").read_text()
    outcomes = judge(record)

    assert len(outcomes) == len(GOALS)
    for goal in [goal for goal, outcome in outcomes if outcome.verdict == "not measured"]:
        said = reasons(goal, record)
        assert said and all(f"- {reason}\n" in page for reason in said), goal.what


def test_every_choice_was_undone_once() -> None:
    record = Record.read(RECORDS / "ablations.json")

    for place in record.places():
        assert set(record.at(place)) == {variant.key for variant in VARIANTS}
