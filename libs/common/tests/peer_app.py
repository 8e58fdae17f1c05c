"""A peer on a real socket that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Headers = Mapping[str, str]


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What to answer: a status, and the pieces of the body with a pause before each."""

    status: int = 200
    body: bytes | list[bytes] = b"{}"
    headers: Headers = field(default_factory=dict)
    pause_s: float = 0.0
    before_s: float = 0.0


def problem(status: int, **fields: Any) -> Answer:
    """Return a problem document as an answer."""
    document = {"title": "t", "status": status} | fields
    return Answer(status, json.dumps(document).encode(), {"content-type": "application/problem+json"})


class Peer:
    """An ASGI application: answers in the order given, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [Answer()]
        self.asked: list[Asked] = []
        self.on_request: Callable[[Asked], None] = lambda asked: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["raw_path"].decode(), scope["query_string"].decode(), headers, body)
        self.asked.append(asked)
        self.on_request(asked)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        await asyncio.sleep(answer.before_s)
        sent = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": sent})
        for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
            await asyncio.sleep(answer.pause_s)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
