"""A link that tests cut and stall leaves nothing of its own behind, whenever it ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import httpx
import pytest
from fastapi import FastAPI
from modelyard_common.testing.links import Link, link_to
from modelyard_common.testing.server import running


@pytest.fixture(scope="module")
def app() -> FastAPI:
    app = FastAPI()
    app.get("/here")(lambda: "here")
    return app


def test_a_link_passes_on_until_it_is_cut_and_after_it_is_mended(app: FastAPI) -> None:
    with running(app) as url, link_to(url) as link:
        assert httpx.get(f"{link.url}/here").json() == "here"
        link.cut()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{link.url}/here")
        link.mend()
        assert httpx.get(f"{link.url}/here").json() == "here"


def test_a_stalled_link_takes_connections_and_answers_when_it_is_mended(app: FastAPI) -> None:
    with running(app) as url, link_to(url) as link:
        link.stall()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{link.url}/here", timeout=0.2)
        link.mend()
        assert httpx.get(f"{link.url}/here").json() == "here"


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("stalled", [False, True], ids=["flowing", "stalled"])
def test_a_connection_of_any_age_is_closed_with_the_link(turns: int, stalled: bool) -> None:
    async def play(caller: socket.socket, far: str) -> None:
        link = Link(asyncio.get_running_loop(), far)
        await link.open()
        if stalled:
            link.stall()
        caller.connect(("127.0.0.1", int(link.url.rpartition(":")[2])))
        for _ in range(turns):
            await asyncio.sleep(0)
        await link.close()

    with socket.create_server(("127.0.0.1", 0)) as far, socket.socket() as caller:
        loop = asyncio.new_event_loop()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ResourceWarning)
            loop.run_until_complete(play(caller, f"http://127.0.0.1:{far.getsockname()[1]}"))
            loop.close()
            gc.collect()

    assert [str(one.message) for one in told] == []
