"""The load that tests of faults are under sees what fails, and does not wait for those who stall."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from modelyard_common.testing import running
from modelyard_common.testing.links import link_to
from modelyard_common.testing.open_loop import Asked, open_loop

BODY = Asked("/", b"?")


class Answering:
    """Answers with a status, and is ready or not."""

    status = 200
    ready = 200

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        status = self.ready if scope["path"] == "/health/ready" else self.status
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def url(answering: Answering) -> Iterator[str]:
    with running(answering) as found:
        yield found


def test_every_answer_that_is_not_200_is_a_failure(answering: Answering, url: str) -> None:
    with open_loop([url], [BODY], rate=100) as load:
        answering.status = 503
        wait_until(lambda: len(load.failures) > 5)
        answering.status = 200
        load.wait_for(5)

    assert len(load.outcomes) == load.answered + len(load.failures)
    assert all(one.endswith("/: 503 ") for one in load.failures)


def test_a_target_that_stalls_does_not_slow_the_load_down(url: str) -> None:
    with link_to(url) as link, open_loop([link.url], [BODY], rate=200) as load:
        link.stall()
        before, began = len(load.outcomes), time.monotonic()
        wait_until(lambda: time.monotonic() - began > 0.5)
        stalled = len(load.outcomes) - before
        link.mend()
        load.wait_for(50)

    # What came due meanwhile was sent: it is answered now, and has waited.
    assert stalled < 20
    assert load.failures == []
    assert sum(1 for one in load.outcomes if one.took_s > 0.1) > 20


def test_targets_that_are_not_ready_or_gone_get_no_requests(answering: Answering, url: str) -> None:
    with running(Answering()) as other, link_to(other) as link, open_loop([url, link.url], [BODY], rate=100) as load:
        answering.ready = 503
        wait_until(lambda: load.rotation == {link.url})
        place = len(load.outcomes)
        load.wait_for(20)
        asked = {one.target for one in load.outcomes[place + 10 :]}
        link.cut()
        wait_until(lambda: not load.rotation)
        wait_until(lambda: "no target is ready" in load.outcomes[-1].failure)

    assert asked == {link.url}


def wait_until(check: Any) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)
