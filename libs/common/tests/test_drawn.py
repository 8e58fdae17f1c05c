"""Digits of ids: as many as are asked for, each sixteen, none twice, for all threads."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from modelyard_common.drawn import DrawnDigits


def test_none_comes_twice_whoever_asks() -> None:
    digits = DrawnDigits()

    def draw(turn: int) -> list[str]:
        return [digits.one() for _ in range(1000)] if turn % 2 else list(digits.many(1000))

    with ThreadPoolExecutor(4) as threads:
        drawn = [one for some in threads.map(draw, range(8)) for one in some]

    assert len(set(drawn)) == len(drawn) == 8000
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for one in drawn)


def test_two_draw_differently() -> None:
    assert set(DrawnDigits().many(100)).isdisjoint(DrawnDigits().many(100))
