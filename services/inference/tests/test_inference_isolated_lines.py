"""A process beside that the event loop asks itself: it answers, fails, ends and hangs as it does for a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from inference_fakes import SIGNATURE, make_bundle
from modelyard_bundle.isolated import ModelFailed, Status
from modelyard_bundle.packaging import Packed
from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Columns, columns_from_rows
from modelyard_common.errors import Unavailable
from modelyard_common.frames import packed
from modelyard_inference.adapters.isolated import IsolatedRuntime, IsolatedRuntimes
from modelyard_inference.adapters.isolated_lines import Line
from modelyard_inference.domain.requests import Away, Late
from runtime_makers import an_isolation, misbehaving

pytestmark = pytest.mark.timeout(120)
_ENOUGH_S = 30.0
T = TypeVar("T")


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    root = tmp_path_factory.mktemp("wild")
    return misbehaving(make_bundle(root / "whole", seed=1, model="wild"), root / "bundle")


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedRuntimes]:
    with an_isolation(call_s=2.0) as (made, _):
        yield made


@pytest.fixture(scope="module")
def runtime(isolated: IsolatedRuntimes, wild: Packed) -> IsolatedRuntime:
    return isolated.load(wild.folder, wild.manifest, str(wild.digest), "pyfunc")


def rows_of(*loads: float) -> Columns:
    return columns_from_rows(SIGNATURE, [{"load": load, "price": 0.1, "day": "mon"} for load in loads])


async def asked(runtime: IsolatedRuntime, *loads: float) -> Predicted:
    """Ask on the event loop as soon as that can be done."""
    answer: asyncio.Future[Predicted | Exception] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(_ENOUGH_S):
        while not runtime.begin(rows_of(*loads), answer.set_result):  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.01)
        found = await answer
    if isinstance(found, Exception):
        raise found
    return found


def on_a_loop(runtime: IsolatedRuntime, play: Coroutine[Any, Any, T]) -> T:
    """Run to the end on an event loop of its own, whose connections end with it."""

    async def whole() -> T:
        try:
            return await play
        finally:
            runtime.close()
            for _ in range(3):  # a connection that ends says so in the turn after
                await asyncio.sleep(0)

    return asyncio.run(whole())


async def answers_again(runtime: IsolatedRuntime) -> None:
    deadline = time.monotonic() + _ENOUGH_S
    while True:
        try:
            await asked(runtime, 0.5)
            return
        except Away:
            assert time.monotonic() < deadline, "it never came back"
            await asyncio.sleep(0.05)


def test_it_answers_as_it_does_for_a_thread(runtime: IsolatedRuntime) -> None:
    loads = np.linspace(-2, 2, 333).tolist()
    expected = runtime.predict(rows_of(*loads))

    found = on_a_loop(runtime, asked(runtime, *loads))

    assert found.labels.tolist() == expected.labels.tolist()
    assert found.probabilities is not None and expected.probabilities is not None
    assert np.array_equal(found.probabilities, expected.probabilities)


def test_calls_that_overlap_get_their_own_rows(runtime: IsolatedRuntime) -> None:
    async def play() -> list[Predicted]:
        return await asyncio.gather(*(asked(runtime, load) for load in (-1.0, 1.0) * 8))

    assert [found.labels.tolist() for found in on_a_loop(runtime, play())] == [[0], [1]] * 8


def test_event_loops_do_not_share_connections(runtime: IsolatedRuntime) -> None:
    async def play() -> list[Predicted]:
        first = await asked(runtime, 1.0)
        other = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        return [first, other, await asked(runtime, 1.0)]

    async def elsewhere() -> Predicted:
        mine = await asked(runtime, 1.0)
        (line,) = runtime.lines
        line.close()
        await _ends(line)
        return mine

    assert [found.labels.tolist() for found in on_a_loop(runtime, play())] == [[1]] * 3


def test_what_a_model_raises_is_told_by_its_kind_and_the_next_call_is_answered(runtime: IsolatedRuntime) -> None:
    async def play() -> None:
        with pytest.raises(ModelFailed, match=r"^ValueError$"):
            await asked(runtime, 888)
        await asked(runtime, 0.5)

    on_a_loop(runtime, play())


def test_a_crash_is_told_to_whoever_asked_and_the_version_comes_back(runtime: IsolatedRuntime) -> None:
    async def play() -> None:
        with pytest.raises(Away) as caught:
            await asked(runtime, 666)
        assert caught.value.began
        await answers_again(runtime)

    on_a_loop(runtime, play())


def test_a_hang_is_late_holds_up_no_loop_and_its_process_is_replaced(runtime: IsolatedRuntime) -> None:
    async def play() -> tuple[int, int]:
        await asked(runtime, 0.5)
        first = runtime.loaded.process
        turns = 0
        hangs = asyncio.ensure_future(asked(runtime, 777))
        while not hangs.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(Late):
            await hangs
        async with asyncio.timeout(_ENOUGH_S):
            while psutil.pid_exists(first):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        await answers_again(runtime)
        return first, turns

    first, turns = on_a_loop(runtime, play())

    assert turns > 20
    assert runtime.loaded.process != first


async def _ends(line: Line) -> None:
    async with asyncio.timeout(_ENOUGH_S):
        while line.is_open:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.01)


@contextmanager
def a_liar(folder: Path, says: bytes, *, unasked: bool) -> Iterator[Path]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "s"))
    listener.listen()

    def lie() -> None:
        connection, _ = listener.accept()
        with connection:
            if not unasked:
                connection.recv(65536)
            connection.sendall(says)
            assert connection.recv(65536) == b""

    liar = threading.Thread(target=lie)
    liar.start()
    try:
        yield folder / "s"
    finally:
        liar.join(10)
        listener.close()
        assert not liar.is_alive()


@pytest.mark.parametrize(
    ("says", "unasked"),
    [(b"\x40\xff\xff\xff\xff", False), (packed(64, b"one") + packed(64, b"two"), False), (packed(64, b"one"), True)],
    ids=["gigabytes", "two answers", "an answer to nothing"],
)
def test_what_is_no_answer_ends_the_connection(tmp_path: Path, says: bytes, unasked: bool) -> None:
    async def play(address: Path) -> None:
        line = Line()
        await line.loop.create_unix_connection(lambda: line, str(address))
        answer: asyncio.Future[Any] = line.loop.create_future()
        async with asyncio.timeout(_ENOUGH_S):
            if not unasked:
                line.ask(packed(1, b""), 10, answer.set_result)
                assert isinstance(await answer, EOFError)
            await _ends(line)

    with a_liar(tmp_path, says, unasked=unasked) as address:
        asyncio.run(play(address))


def test_an_answer_in_pieces_is_one_answer(tmp_path: Path) -> None:
    frame = packed(64, bytes(90_000))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    async def play() -> tuple[int, bytes]:
        line = Line()
        await line.loop.create_unix_connection(lambda: line, str(tmp_path / "s"))
        other, _ = listener.accept()
        answer: asyncio.Future[Any] = line.loop.create_future()
        line.ask(packed(1, b"please"), 10, answer.set_result)
        for start in (0, 3, 5, 50_000):
            other.sendall(frame[start : {0: 3, 3: 5, 5: 50_000, 50_000: None}[start]])
            await asyncio.sleep(0)
        found: tuple[int, bytes] = await answer
        other.close()
        await _ends(line)
        return found

    try:
        assert asyncio.run(play()) == (64, bytes(90_000))
    finally:
        listener.close()


def test_what_could_not_be_unloaded_is_tried_again_and_held_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    class Host:
        def __init__(self) -> None:
            self.withdrawn: list[str] = []

        def withdraw(self, digest: str) -> None:
            self.withdrawn.append(digest)

    host: Any = Host()
    isolated = IsolatedRuntimes(host, call_s=1.0)
    answers: list[Exception | bytes] = [Unavailable("it is busy"), b""]

    def said(kind: int, message: object, timeout_s: float) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(isolated, "_said", said)
    monkeypatch.setattr(isolated, "_looked", lambda: Status(1, ()))
    monkeypatch.setattr(isolated, "_control", host)
    isolated._held["sha256:a"] = 1
    isolated._dropped.put("sha256:a")

    isolated.keep()
    assert host.withdrawn == []
    isolated.keep()
    assert host.withdrawn == ["sha256:a"]
    assert answers == []
