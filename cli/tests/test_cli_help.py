"""The help teaches: every command has examples, and every example is one that the command takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import typer
from cli_stage import ROOT, modelyard
from modelyard_cli.main import app


def commands() -> Iterator[tuple[str, ...]]:
    root = typer.main.get_command(app)
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        yield (name,)
        for below in sorted(getattr(command, "commands", {})):
            yield (name, below)


PROMISED = (
    *("up", "down", "status", "apply", "delete", "get", "describe", "train", "logs", "register", "promote"),
    *("rollback", "pause", "predict", "drift", "demo"),
)


def test_every_command_that_people_were_promised_is_there() -> None:
    found = set(commands())

    assert {(name,) for name in PROMISED} <= found
    assert {("get", what) for what in ("models", "versions", "runs", "datasets", "episodes", "events")} <= found


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_of_every_command_shows_examples_that_the_command_takes(words: tuple[str, ...]) -> None:
    text = modelyard(*words, "--help").ok().out
    assert "Usage: modelyard" in text
    if len(words) == 2 or words == ("demo",):
        return  # the examples of `get` stand with the group

    lines = text.partition("Examples:")[2].partition("╭")[0].splitlines()
    examples = [shown for line in lines if (shown := re.search(r"modelyard .*?(?=\s{3,}|$| \||\)| &&|;)", line))]

    assert all("modelyard" in line for line in lines if line.strip()), "an example is too long for a terminal"
    assert examples, f"{' '.join(words)} has no examples"
    for example in examples:
        given = shlex.split(example.group().replace('"', " "))[1:]
        said = modelyard(*given, "--help")
        assert said.code == 0, f"{example.group()}: {said.err}"


def test_global_help_tells_the_exit_codes_and_the_first_steps() -> None:
    text = modelyard("--help").ok().out

    assert "modelyard up --detach" in text
    for part in ("0 fine", "2 wrong input", "3 not found", "4 refused", "5", "6 the run failed", "7 the run's version"):
        assert part in text


def test_the_first_steps_of_the_help_name_files_that_exist() -> None:
    text = modelyard("--help").ok().out

    for path in re.findall(r"examples/\S+\.yaml", text):
        assert (ROOT / path).is_file()
