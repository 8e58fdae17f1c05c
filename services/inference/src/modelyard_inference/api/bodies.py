"""The body of an HTTP request: read whole, and unpacked within the same bound as a plain one."""

from __future__ import annotations

import zlib
from typing import Any

from modelyard_common.errors import TooLarge

from modelyard_inference.api.errors import UnsupportedMedia
from modelyard_inference.domain.requests import invalid

__all__ = ["read_body", "unpacked"]

_GZIP, _ZLIB = 31, 15
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


async def read_body(receive: Any) -> bytes | None:
    """Return the whole body; None when the caller has gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


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
    unpack = zlib.decompressobj(_WINDOWS[encoding])
    try:
        content = unpack.decompress(body, most_bytes + 1)
    except zlib.error as exc:
        raise invalid("body", f"is not {encoding}") from exc
    if len(content) > most_bytes:
        raise TooLarge(f"the body is larger than {most_bytes} bytes once unpacked")
    if not unpack.eof or unpack.unused_data:
        raise invalid("body", f"is not one whole {encoding} stream")
    return content
