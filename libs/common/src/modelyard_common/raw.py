"""Raw routes: a whole request in, a whole answer out, for what is hot. The edge does the rest, once for all protocols.

A plain ASGI application would do; but what it is handed and what it sends has to be wrapped to be bounded and counted,
and each layer costs as much as a small model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modelyard_common.auth.principals import Principal

__all__ = ["Caller", "Head", "RawAnswer", "RawRequest", "RawRoute", "nothing_more", "read_body"]

Headers = Mapping[bytes, bytes]
"""By name in lower case; of several with one name the last."""
_Receive = Callable[[], Awaitable[dict[str, Any]]]


async def nothing_more() -> dict[str, Any]:
    """Say that the caller has gone: there is nothing else to come."""
    return {"type": "http.disconnect"}


class Caller:
    """Who waits for an answer that was to come soon.

    Attributes:
        left: what is done when they hang up before it; set by whoever answers in a later turn of the event loop.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left: Callable[[], None] | None = None


class RawRequest(NamedTuple):
    """A request that was read whole, within the bound of a body.

    Attributes:
        principal: who asks.
        receive: what may still be heard of the caller.
        prepared: what the route has made of the head, for its ``soon``.
        caller: for a ``soon`` that answers in a later turn.
    """

    path: str
    principal: Principal
    headers: Headers
    body: bytes
    receive: _Receive = nothing_more
    prepared: Any = None
    caller: Caller | None = None

    async def gone(self) -> None:
        """Return when the caller has hung up."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class RawAnswer(NamedTuple):
    """An answer, without what the edge adds: its length and the request id.

    Attributes:
        headers: other lines of its head as they are sent, each with its end.
    """

    content: bytes
    media_type: bytes = b"application/json"
    status: int = 200
    headers: bytes = b""

    @property
    def pairs(self) -> list[tuple[bytes, bytes]]:
        """The same headers by name."""
        lines = (line.partition(b": ") for line in self.headers.split(b"\r\n") if line)
        return [(name, value) for name, _, value in lines]


Together = Callable[[Any, Sequence[memoryview], float, Callable[[Sequence[RawAnswer]], None]], bool]
"""Takes what the route has made of the first head, the bodies, ``time.monotonic()`` when the first of them came, and
who takes the answers, in the order of the bodies. False: nothing was done."""


@dataclass(frozen=True, slots=True)
class RawRoute:
    """What answers before FastAPI does.

    Args:
        matches: (method, path) → whether this route answers.
        answer: answers; None once the caller has gone.
        template: the route's name in metrics.
        soon: hands over the answer without a coroutine, within this turn of the event loop or later; then it says what
            to do when the caller hangs up before. It returns False, having done nothing, for a request that it leaves
            to ``answer``, and raises nothing.
        prepare: (path, headers) → what ``soon`` needs of them, since callers send the same head again and again; None
            leaves all requests with that head to ``answer``. It raises nothing.
        together: hands over the answers to several requests within this turn of the event loop, as if each had been
            asked by itself, or leaves them all to ``soon``. It raises nothing.
        kin: (what was prepared) → the same for requests that may be answered together; None for those that may not.
    """

    matches: Callable[[str, str], bool]
    answer: Callable[[RawRequest], Awaitable[RawAnswer | None]]
    template: str
    soon: Callable[[RawRequest, Callable[[RawAnswer], None]], bool] | None = None
    prepare: Callable[[str, Headers], Any] = lambda path, headers: ()
    together: Together | None = None
    kin: Callable[[Any], Hashable | None] = lambda prepared: None


class Head(NamedTuple):
    """The head of a request whose route answers soon.

    Attributes:
        soon, prepared, together: the route's.
        is_open: it takes no token.
        kin: of this route, the same for heads whose requests may be answered together; None for one whose may not.
    """

    method: str
    path: str
    headers: Headers
    template: str
    soon: Callable[[RawRequest, Callable[[RawAnswer], None]], bool]
    prepared: Any
    is_open: bool = False
    together: Together | None = None
    kin: Hashable | None = None


async def read_body(receive: _Receive) -> bytes | None:
    """Return the whole body; None when the caller has gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
