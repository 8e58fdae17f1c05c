"""A build is not believed: what the engine's cache hands out is looked into, by an engine that answers as told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.images.build import build
from tools.images.catalog import IMAGES, TRAINING_WITH_TRAINER, Image
from tools.images.engine import Engine, EngineError

ANSWERS = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$1" in
    run) n=$(grep -c ^run "$CALLS"); sed -n "${n}p" "$MISSING" ;;
    image) echo '[{"Size": 1000000}]' ;;
esac
"""


def answering(folder: Path, *missing: str) -> Engine:
    """Return an engine whose images lack what is said, one look after the other."""
    program = folder / "docker"
    program.write_text(ANSWERS)
    program.chmod(0o755)
    (folder / "missing").write_text("".join(f"{names}\n" for names in missing))
    return Engine((str(program),), {"CALLS": str(folder / "calls"), "MISSING": str(folder / "missing")})


def builds(folder: Path) -> list[str]:
    calls = (folder / "calls").read_text().splitlines()
    return [call for call in calls if call.startswith("build")]


@pytest.mark.parametrize("image", [IMAGES["drift"], TRAINING_WITH_TRAINER], ids=["one member", "two members"])
def test_an_image_that_holds_its_members_is_built_once(tmp_path: Path, image: Image) -> None:
    built = build(answering(tmp_path, ""), image, base="base")

    assert built.tag == image.tag()
    assert len(builds(tmp_path)) == 1
    looks = [call for call in (tmp_path / "calls").read_text().splitlines() if call.startswith("run")]
    assert [look.split()[-len(image.modules) :] for look in looks] == [list(image.modules)]


def test_a_cache_that_lost_the_code_is_passed_by(tmp_path: Path) -> None:
    build(answering(tmp_path, "modelyard_drift", ""), IMAGES["drift"], base="base")

    assert ["--no-cache" in call for call in builds(tmp_path)] == [False, True]


def test_an_image_without_its_code_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="modelyard/drift:dev was built without modelyard_drift"):
        build(answering(tmp_path, "modelyard_drift", "modelyard_drift"), IMAGES["drift"], base="base")
