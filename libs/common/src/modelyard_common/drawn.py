"""Random digits for ids that need not be secret, only different."""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Sequence

__all__ = ["DrawnDigits"]

_DIGITS = 16
_AT_ONCE = 256


class DrawnDigits:
    """Sixteen hexadecimal digits for each id: 64 bits, from a generator that is seeded once, many drawn at a time.

    A system call for each would cost as much as a part of the request that it is for, and to draw one takes more of the
    processor's caches than to take one that is there. Thread safe. Not for processes that fork: they would draw the
    same.
    """

    def __init__(self) -> None:
        self._chance = random.Random(secrets.randbits(256))
        self._ready: deque[str] = deque()

    def one(self) -> str:
        """Return the digits of one id."""
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                self._ready.extend(self.many(_AT_ONCE))

    def many(self, count: int) -> Sequence[str]:
        """Return the digits of so many ids."""
        digits = self._chance.randbytes(count * _DIGITS // 2).hex()
        return [digits[start : start + _DIGITS] for start in range(0, count * _DIGITS, _DIGITS)]
