"""The bearer token that this process shows to somebody else, from a mounted file that is read for each call."""

from __future__ import annotations

from pathlib import Path

from modelyard_common.errors import Unauthenticated

__all__ = ["token_in"]


def token_in(path: Path, whose: str = "") -> str:
    """Return the token that a file holds now, so that a rotated one is taken.

    Args:
        whose: what the file is called in errors, where its path is nobody's business.

    Raises:
        Unauthenticated: it cannot be read, or is not one line of printable ASCII, which half of a rotation may leave.
            Never tells what is in it.
    """
    name = whose or f"the token file {path}"
    try:
        token = path.read_bytes().decode("ascii").strip()
    except OSError as exc:
        raise Unauthenticated(f"{name} cannot be read ({exc.strerror or type(exc).__name__})") from exc
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable():
        raise Unauthenticated(f"{name} does not hold one line of printable ASCII")
    return token
