"""Packed bodies: requests within the same bound as plain ones, answers over HTTP where it is asked for and pays."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from modelyard_common.errors import Invalid, TooLarge

from modelyard_inference.api.accepting import weights
from modelyard_inference.api.codecs.bounds import LARGE_BYTES
from modelyard_inference.api.errors import UnsupportedMedia
from modelyard_inference.api.front import Front, Labels

__all__ = ["WORTH_PACKING_BYTES", "opened", "packed", "unpacked", "unpacked_soon"]

WORTH_PACKING_BYTES = 16 * 1024
"""Below this, packing takes longer than a network of our days takes for the bytes; most clients ask for it always."""
_LEVEL = 1
"""Numbers as text halve at once; higher levels take several times as long for a few percent."""
_ON_THE_LOOP_BYTES = 64 * 1024
"""Above this, packing takes long enough to keep the event loop from its other work: about a millisecond."""

_MOST_STREAMS = 4096
"""Of one body. More bring next to nothing each, and each costs as much to begin as a small body."""
_PIECE_BYTES = 64 * 1024
"""Whatever is behind a stream is copied where it ends; so it is not all of the body."""

_GZIP, _ZLIB = 31, 15
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


def unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """Return a body without its content-encoding.

    Raises:
        UnsupportedMedia: an encoding that is not known, or several.
        Invalid: it is not encoded so.
        TooLarge: there is more in it than a body may have; nothing beyond that bound is unpacked.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise UnsupportedMedia("content-encoding must be gzip, deflate or identity")
    window = _WINDOWS[encoding]
    try:
        parts, end = _streams(body, window, most_bytes)
    except zlib.error as exc:
        raise Invalid.at("body", f"is not {encoding}") from exc
    if sum(map(len, parts)) > most_bytes:
        raise TooLarge(f"the body is larger than {most_bytes} bytes once unpacked")
    if end is None or (body[end:].strip(b"\0") if window == _GZIP else body[end:]):
        raise Invalid.at("body", f"is not one whole {encoding} stream")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _streams(body: bytes, window: int, most_bytes: int) -> tuple[list[bytes], int | None]:
    """Return what is packed in a body, at most one byte beyond the bound, and where the last stream ends, if it does.

    A file of gzip is one stream after another (RFC 1952, section 2.2); bgzip and servers that pack piece by piece
    write many.

    Raises:
        zlib.error: it is not packed so.
    """
    parts: list[bytes] = []
    view, place, left = memoryview(body), 0, most_bytes + 1
    for _ in range(_MOST_STREAMS if window == _GZIP else 1):
        unpack = zlib.decompressobj(window)
        while not unpack.eof and place < len(view) and left:
            piece = view[place : place + _PIECE_BYTES]
            parts.append(unpack.decompress(piece, left))
            left -= len(parts[-1])
            place += len(piece) - len(unpack.unused_data)
        if not unpack.eof or not left:
            return parts, None
        if place == len(view) or view[place] == 0:  # zeros may fill the last block of a file
            break
    return parts, place


def unpacked_soon(body: bytes, encoding: str, most_bytes: int) -> bytes | None:
    """Return what ``unpacked`` does; None where that takes long, so that it is not for the event loop."""
    if encoding and len(body) > LARGE_BYTES:  # however little is in it: blocks that hold nothing take their time too
        return None
    try:
        return unpacked(body, encoding, min(LARGE_BYTES, most_bytes))
    except TooLarge:
        if most_bytes <= LARGE_BYTES:
            raise
        return None


@asynccontextmanager
async def opened(body: bytes, encoding: str, front: Front, labels: Labels) -> AsyncIterator[bytes]:
    """Give a body without its content-encoding, counted among all that are held until nothing is done with it.

    Raises:
        Overloaded: there is no room for what was in it.
        Late: it was not unpacked in time.
        ModelyardError: what ``unpacked`` raises.
    """
    most_bytes = front.bounds.max_body_bytes
    content = unpacked_soon(body, encoding, most_bytes)
    if content is None:
        content = await front.apart(partial(unpacked, body, encoding, most_bytes), labels)
    with front.held.holding(0 if content is body else len(content)):
        yield content


async def packed(content: bytes, accepted: str) -> tuple[bytes, str]:
    """Return an answer packed as the caller's ``accept-encoding`` wants it, and how; as it is, and "", where not."""
    encoding = _best(accepted)
    if not encoding:
        return content, ""
    if len(content) <= _ON_THE_LOOP_BYTES:
        return _packed(content, encoding), encoding
    return await asyncio.to_thread(_packed, content, encoding), encoding


def _packed(content: bytes, encoding: str) -> bytes:
    pack = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return pack.compress(content) + pack.flush()


def _best(accepted: str) -> str:
    """Return gzip or deflate, whichever is accepted first of the two in this order (RFC 9110, section 12.5.3)."""
    taken = weights(accepted)
    return next((name for name in ("gzip", "deflate") if taken.get(name, taken.get("*", 0)) > 0), "")
