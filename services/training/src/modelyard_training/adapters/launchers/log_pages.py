"""Cuts pages out of a log: between characters, from a byte offset on or from the end."""

from __future__ import annotations

import codecs

from modelyard_training.domain.ports import LogPage

__all__ = ["page"]


def page(data: bytes, start: int, *, from_end: bool) -> LogPage:
    """Return a piece of a log as text.

    Args:
        data: the piece.
        start: its offset in the log, in bytes.
        from_end: it was asked for from the end, and may begin within a character.
    """
    if from_end:
        while data and 0x80 <= data[0] < 0xC0:  # the rest of a character that began before
            data, start = data[1:], start + 1
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return LogPage(text, start + len(data) - len(decoder.getstate()[0]))
