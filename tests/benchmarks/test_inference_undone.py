"""What the ablations undo is there to be undone, and is called as what takes its place expects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench.inference.models import Kit
from bench.inference.names import UNDONE
from bench.inference.undone import replace
from bench.inference.variants import VARIANTS

ROOT = Path(__file__).parents[2]
EACH = """
from bench.inference.undone import CHOICES
for name, undo in CHOICES.items():
    undo()
    print(name)
"""


class Shipped:
    """Stands for a class of the service."""

    @classmethod
    def of(cls, session: object, names: object) -> None:
        """Take two."""

    def close(self) -> None:
        """Take none."""


def test_every_choice_can_be_undone_and_is_one_variant(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", EACH], cwd=ROOT / "tools", check=False, capture_output=True, text=True, timeout=60
    )

    assert found.returncode == 0, found.stderr
    kit = Kit("linear", *[tmp_path] * 4, features=(), questions={})
    settings = [contender.start(kit, tmp_path, sys.executable).command.env for contender in VARIANTS]
    assert sorted(found.stdout.split()) == sorted(one[UNDONE] for one in settings if UNDONE in one)


def test_what_is_not_there_is_not_undone() -> None:
    with pytest.raises(TypeError, match="has no open"):
        replace(Shipped, "open", lambda self: None)


@pytest.mark.parametrize("name", ["of", "close"])
def test_what_is_called_otherwise_takes_no_place(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Shipped'>\.{name} takes"):
        replace(Shipped, name, lambda session: None)


def test_what_is_called_alike_takes_the_place() -> None:
    class Own(Shipped):
        pass

    replace(Own, "of", lambda session, names: "undone")

    assert Own.of(None, None) == "undone"  # type: ignore[func-returns-value]
