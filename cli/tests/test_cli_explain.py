"""`modelyard explain` against a real inference server, and the commands of docs/explanations.md."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_stage import ROOT
from offline_stage import MODEL, Yard, a_yard, rows, write

PAGE = (ROOT / "docs" / "explanations.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^modelyard explain .*$", PAGE, flags=re.MULTILINE)]
ROW = json.dumps({"load": 0.7, "price": 0.2, "day": "mon", "id": 7})


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with a_yard(tmp_path_factory.mktemp("yard")) as made:
        yield made


def test_the_commands_of_the_page_run(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(rows(5), Path("rows.csv"))

    shown, answer = [yard(*words).ok() for words in COMMANDS]

    assert "exact: over all subsets of features; against 64 rows of the probe set" in shown.out
    assert len(answer.json["explanations"]) == 3


def test_the_largest_contribution_comes_first_and_all_sum_to_the_answer(yard: Yard) -> None:
    lines = yard("explain", MODEL, stdin=ROW).ok().out.splitlines()
    [one] = yard("explain", MODEL, "-o", "json", stdin=ROW).ok().json["explanations"]

    table = [line.split() for line in lines[2:-1]]
    assert table[0][0] == "(base)"
    assert table[1][:2] == ["load", "0.7"]
    assert {line[0] for line in table[1:]} == {"load", "price", "day"}
    assert one["base_value"] + sum(one["contributions"].values()) == pytest.approx(one["value"], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "stdin", "code", "sentence"),
    [
        (("explain", "nobody"), ROW, 3, "nobody"),
        (("explain", MODEL), '{"load": "x", "day": "mon"}', 2, "[0].load: must be a number"),
        (("explain", MODEL), '{"other": 1}', 2, "no feature of power; its features are day, load, price"),
        (("explain", MODEL, "--version", "9"), ROW, 3, "no such version"),
        (("explain", MODEL, "--version", "x"), ROW, 2, "neither the number of a version nor a digest"),
        (("explain", MODEL, "-f", "gone.csv"), "", 3, "there is no file gone.csv"),
    ],
)
def test_what_cannot_be_explained_says_why(
    yard: Yard, words: tuple[str, ...], stdin: str, code: int, sentence: str
) -> None:
    said = yard(*words, stdin=stdin)

    assert (said.code, said.out) == (code, "")
    assert sentence in said.err.replace("\n", " ")
