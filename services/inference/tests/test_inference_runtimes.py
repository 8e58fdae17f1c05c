"""Every runtime answers as the one in this process does; a process apart that ends, hangs or lies costs only itself."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from inference_fakes import SIGNATURE, eventually
from modelyard_bundle.isolated import ASK, INVALID, ModelFailed, Peer, encoded, predicted_of
from modelyard_bundle.loading import load
from modelyard_bundle.packaging import Packed
from modelyard_bundle.probe import replay
from modelyard_bundle.runtimes.base import Runtime
from modelyard_bundle.signature import Columns, columns_from_rows
from modelyard_common.errors import Invalid, ModelyardError, Unavailable
from modelyard_common.frames import packed, read_frame
from modelyard_inference.adapters.bundles import BundleCache
from modelyard_inference.adapters.isolated import IsolatedRuntime, IsolatedRuntimes
from modelyard_inference.adapters.isolated_process import SideContainer, SpawnedProcess
from modelyard_inference.adapters.runtimes import InProcess
from modelyard_inference.domain.ports import Runtimes
from modelyard_inference.domain.requests import Late
from runtime_makers import an_isolation, changed, misbehaving, without_twin

pytestmark = pytest.mark.timeout(120)
Isolation = tuple[IsolatedRuntimes, SpawnedProcess]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return without_twin(tmp_path_factory.mktemp("plain") / "bundle")


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory, bundles: tuple[Packed, Packed]) -> Packed:
    return misbehaving(bundles[0], tmp_path_factory.mktemp("wild") / "bundle")


@pytest.fixture(scope="module")
def shared() -> Iterator[Isolation]:
    with an_isolation() as made:
        yield made


def rows_of(*loads: float) -> Columns:
    return columns_from_rows(SIGNATURE, [{"load": load, "price": 0.1, "day": "mon"} for load in loads])


def loaded(runtimes: Runtimes, bundle: Packed) -> Any:
    return runtimes.load(bundle.folder, bundle.manifest, str(bundle.digest), bundle.manifest.runtimes[-1])


def outcome(runtime: Runtime, columns: Columns) -> str:
    try:
        runtime.predict(columns)
    except Exception as exc:
        return type(exc).__name__
    return "answered"


class TestEveryRuntime:
    """One suite over the runtime in this process and the one beside it."""

    @pytest.fixture(params=["in process", "isolated"])
    def runtimes(self, request: pytest.FixtureRequest) -> Runtimes:
        if request.param == "in process":
            return InProcess()
        isolated: IsolatedRuntimes = request.getfixturevalue("shared")[0]
        return isolated

    def test_it_answers_as_the_estimator_does(self, runtimes: Runtimes, plain: Packed) -> None:
        columns = rows_of(*np.linspace(-2, 2, 333).tolist())
        expected = load(plain.folder, plain.manifest).predict(columns)

        found = loaded(runtimes, plain).predict(columns)

        assert found.labels.tolist() == expected.labels.tolist()
        assert found.probabilities is not None and expected.probabilities is not None
        assert found.probabilities.dtype == np.float32
        assert np.array_equal(found.probabilities, expected.probabilities)

    def test_it_replays_its_probe_set(self, runtimes: Runtimes, plain: Packed) -> None:
        runtime = loaded(runtimes, plain)

        replay(runtime, plain.manifest.signature, plain.folder)

        assert (runtime.name, runtime.blocking) == ("sklearn", True)

    def test_a_damaged_model_is_refused_with_its_file(self, runtimes: Runtimes, plain: Packed, tmp_path: Path) -> None:
        broken = changed(plain, tmp_path / "broken", lambda copy: (copy / "model.skops").write_bytes(b"no model"))

        with pytest.raises(Invalid, match=r"model\.skops: cannot be read"):
            loaded(runtimes, broken)

    def test_several_threads_get_their_own_rows(self, runtimes: Runtimes, plain: Packed) -> None:
        runtime, wrong = loaded(runtimes, plain), []

        def ask(load: float) -> None:
            mine = rows_of(load, -load)
            if runtime.predict(mine).labels.tolist() != expected[load]:
                wrong.append(load)

        loads = [number / 7 for number in range(1, 20)]
        direct = load(plain.folder, plain.manifest)
        expected = {value: direct.predict(rows_of(value, -value)).labels.tolist() for value in loads}
        threads = [threading.Thread(target=ask, args=[value]) for value in loads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert wrong == []


def test_the_process_beside_verifies_every_byte_itself(shared: Isolation, plain: Packed, tmp_path: Path) -> None:
    tampered = changed(plain, tmp_path / "tampered", lambda copy: None)
    (tampered.folder / "baseline.json").write_text('{"tampered": 1}')

    with pytest.raises(Invalid, match=r"baseline\.json: its bytes are not those"):
        loaded(shared[0], tampered)


def test_pyfunc_is_refused_unless_the_operator_allows_code(wild: Packed) -> None:
    with (
        an_isolation(pyfunc="false") as (isolated, _),
        pytest.raises(Invalid, match="MODELYARD_INFERENCE_RUNTIME_PYFUNC=true"),
    ):
        loaded(isolated, wild)


def test_pyfunc_never_runs_in_the_servers_own_process(wild: Packed) -> None:
    with pytest.raises(Invalid, match="only in the inference runtime's own processes"):
        loaded(InProcess(), wild)


def test_what_a_model_raises_is_told_by_its_kind_and_never_by_its_words(shared: Isolation, wild: Packed) -> None:
    runtime = loaded(shared[0], wild)

    with pytest.raises(ModelFailed) as caught:
        runtime.predict(rows_of(888))

    assert str(caught.value) == "ValueError"
    assert outcome(runtime, rows_of(0.5)) == "answered"


@pytest.mark.slow
def test_a_crash_costs_its_own_request_and_the_version_comes_back(
    shared: Isolation, wild: Packed, plain: Packed
) -> None:
    runtime, other = loaded(shared[0], wild), loaded(shared[0], plain)

    assert outcome(runtime, rows_of(666)) == "Away"
    assert outcome(other, rows_of(0.5)) == "answered"
    assert eventually(lambda: outcome(runtime, rows_of(0.5)) == "answered", 30)
    assert outcome(other, rows_of(0.5)) == "answered"


def test_a_hang_is_late_and_its_process_is_replaced(wild: Packed) -> None:
    with an_isolation(call_s=1.0) as (isolated, _):
        runtime = loaded(isolated, wild)
        first, began = runtime.loaded.process, time.monotonic()

        with pytest.raises(Late):
            runtime.predict(rows_of(777))
        took_s = time.monotonic() - began

        assert took_s < 5
        assert eventually(lambda: outcome(runtime, rows_of(0.5)) == "answered", 30)
        assert eventually(lambda: runtime.loaded.process != first and not psutil.pid_exists(first))


@pytest.mark.slow
def test_a_leak_ends_at_its_bound_and_the_version_comes_back(wild: Packed) -> None:
    with an_isolation(memory_bytes=str(1024**3)) as (isolated, _):
        runtime = loaded(isolated, wild)

        assert outcome(runtime, rows_of(999)) == "Away"
        assert eventually(lambda: runtime.problem == "" and outcome(runtime, rows_of(0.5)) == "answered", 30)


@pytest.mark.slow
def test_a_version_that_keeps_crashing_is_left_alone_and_says_so(wild: Packed, plain: Packed) -> None:
    with an_isolation(crash_limit="2") as (isolated, _):
        runtime, other = loaded(isolated, wild), loaded(isolated, plain)

        def crash_and_look() -> str | None:
            outcome(runtime, rows_of(666))
            return isolated.check()

        said = eventually(lambda: "not started again" in (crash_and_look() or "") and isolated.check(), 30)

        assert "ended 2 times within 300 s, the last time because of SIGSEGV" in said
        with pytest.raises(Unavailable, match="not started again"):
            runtime.predict(rows_of(0.5))
        assert outcome(other, rows_of(0.5)) == "answered"


@pytest.mark.slow
def test_kill_9_of_all_processes_under_load_fails_no_other_model_and_hangs_nobody(
    plain: Packed, bundles: tuple[Packed, Packed]
) -> None:
    with an_isolation() as (isolated, host):
        apart, here = loaded(isolated, plain), load(bundles[0].folder, bundles[0].manifest)
        seen: list[tuple[str, str, float]] = []
        stop = threading.Event()

        def ask(name: str, runtime: Runtime) -> None:
            while not stop.is_set():
                began = time.monotonic()
                what = outcome(runtime, rows_of(0.5, -0.5))
                seen.append((name, what, time.monotonic() - began))
                stop.wait(0.002)

        threads = [threading.Thread(target=ask, args=args) for args in [("apart", apart), ("here", here)] * 3]
        for thread in threads:
            thread.start()
        eventually(lambda: len(seen) > 100)
        assert host.pid is not None
        supervisor = psutil.Process(host.pid)
        for process in [*supervisor.children(), supervisor]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        killed = len(seen)
        eventually(lambda: any(what != "answered" for _, what, _ in seen[killed:]))
        eventually(
            lambda: all(what == "answered" for _, what, _ in seen[-50:]) and outcome(apart, rows_of(1)) == "answered",
            40,
        )
        stop.set()
        for thread in threads:
            thread.join(20)

        assert {what for name, what, _ in seen if name == "here"} == {"answered"}
        assert {what for name, what, _ in seen if name == "apart"} == {"answered", "Away"}
        assert max(took_s for _, _, took_s in seen) < 5


def test_a_version_is_unloaded_with_the_last_reference_to_it(plain: Packed) -> None:
    with an_isolation() as (isolated, _):
        runtime = loaded(isolated, plain)
        in_flight = runtime
        process = runtime.loaded.process
        del runtime
        isolated.keep()
        assert outcome(in_flight, rows_of(0.5)) == "answered"
        del in_flight
        gc.collect()

        eventually(lambda: not psutil.pid_exists(process))
        assert isolated.status == () or eventually(lambda: isolated.status == ())


def test_a_version_returns_after_a_crash_though_the_cache_had_no_more_room_for_its_bundle(
    plain: Packed, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    class Source:
        def download_bundle(self, model: str, digest: str, into: Path) -> Path:
            folder = next(one.folder for one in (plain, *bundles) if str(one.digest) == digest)
            shutil.copytree(folder, into, dirs_exist_ok=True)
            return into

    cache = BundleCache(tmp_path / "bundles", Source(), most=1)
    with an_isolation() as (isolated, _):
        folder, manifest = cache.open("power", str(plain.digest))
        runtime = isolated.load(folder, manifest, str(plain.digest), "sklearn")
        os.utime(folder, (1, 1))
        cache.open("power", str(bundles[0].digest))
        os.kill(runtime.loaded.process, signal.SIGKILL)
        eventually(lambda: outcome(runtime, rows_of(0.5)) == "Away")
        eventually(lambda: outcome(runtime, rows_of(0.5)) == "answered", 20)

    cache.open("power", str(bundles[1].digest))
    assert not folder.exists()


def test_the_processes_end_with_the_server_that_started_them(plain: Packed) -> None:
    with an_isolation() as (isolated, host):
        process = loaded(isolated, plain).loaded.process
        supervisor, folder = host.pid, host._folder
        assert folder is not None and folder.is_dir()

    eventually(lambda: not psutil.pid_exists(process) and not psutil.pid_exists(supervisor or 0))
    assert not folder.exists()


@pytest.mark.parametrize("beside", ["a process of ours", "a container"])
def test_the_end_waits_for_no_version_that_loads(wild: Packed, tmp_path: Path, beside: str) -> None:
    def slowly(copy: Path) -> None:
        code = copy / "code" / "misbehaving_model.py"
        code.write_text(code.read_text().replace("    return Model()", "    time.sleep(3600)"))

    slow = changed(wild, tmp_path / "slow", slowly)
    with an_isolation() as (ours, host), ThreadPoolExecutor(1) as thread:
        host.connect().close()
        assert host._folder is not None
        container = IsolatedRuntimes(SideContainer(host._folder / "runtime.sock"), call_s=5.0)
        isolated = container if beside == "a container" else ours
        supervisor = psutil.Process(host.pid)
        loading = thread.submit(loaded, isolated, slow)
        eventually(supervisor.children)
        began = time.monotonic()
        isolated.close()
        took_s = time.monotonic() - began
        with pytest.raises(Unavailable):
            loading.result(5)
        with pytest.raises(Unavailable, match="ends with this server"):
            loaded(isolated, slow)

    assert took_s < 8


def test_a_side_container_is_shown_the_bundle_and_nothing_else(plain: Packed) -> None:
    with an_isolation() as (_, host):
        host.connect().close()
        assert host._folder is not None
        shared_folder = host._folder
        beside = IsolatedRuntimes(SideContainer(shared_folder / "runtime.sock"), call_s=5.0)
        runtime = loaded(beside, plain)
        shown = shared_folder / runtime.load.folder

        assert runtime.load.folder == f"bundles/{plain.digest.hex}"
        assert shown.is_dir()
        assert outcome(runtime, rows_of(0.5)) == "answered"
        del runtime
        beside.keep()
        assert not shown.exists()
        beside.close()


def test_a_side_container_that_is_not_there_is_a_reason_to_try_again(plain: Packed, tmp_path: Path) -> None:
    isolated = IsolatedRuntimes(SideContainer(tmp_path / "runtime.sock"), call_s=1.0)

    with pytest.raises(Unavailable, match="does not listen"):
        loaded(isolated, plain)


NUMBER, DAY = bytes(4), ["mon"]
FORGED = {
    "no call of ours": packed(99, b""),
    "no message": packed(ASK, b"\xff\xfe"),
    "another message": packed(ASK, encoded([None])),
    "a pickle": packed(ASK, pickle.dumps(print)),
    "unknown columns": packed(ASK, encoded(["predict", {"other": NUMBER}, {}])),
    "half a number": packed(ASK, encoded(["predict", {"load": b"abc", "price": NUMBER, "day": DAY}, {}])),
    "a text for a number": packed(ASK, encoded(["predict", {"load": DAY, "price": NUMBER, "day": DAY}, {}])),
    "other lengths": packed(ASK, encoded(["predict", {"load": b"", "price": NUMBER, "day": DAY}, {}])),
    "unknown operation": packed(ASK, encoded(["exec", {}, {}])),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_frames_are_refused_and_the_next_request_is_answered(
    shared: Isolation, plain: Packed, name: str
) -> None:
    runtime: IsolatedRuntime = loaded(shared[0], plain)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(shared[0].address(runtime.loaded)))
        sock.sendall(FORGED[name])

        kind, words = read_frame(lambda length: sock.recv(length, socket.MSG_WAITALL), 10_000)

    assert kind == INVALID, words
    assert outcome(runtime, rows_of(0.5)) == "answered"


def test_a_frame_that_claims_gigabytes_ends_its_connection_only(shared: Isolation, plain: Packed) -> None:
    runtime: IsolatedRuntime = loaded(shared[0], plain)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(shared[0].address(runtime.loaded)))
        sock.sendall(b"\x05\xff\xff\xff\xff")
        kind, words = read_frame(lambda length: sock.recv(length, socket.MSG_WAITALL), 10_000)
        ended = sock.recv(1)

    assert (kind, ended) == (INVALID, b"")
    assert b"are taken" in words
    assert outcome(runtime, rows_of(0.5)) == "answered"


@pytest.mark.parametrize(
    "answer",
    [packed(64, b"\xff"), packed(64, b"\x94\xc4\x03abc\xa2f8\xc0\x00"), packed(77, b"")],
    ids=["no message", "half a number", "no status of ours"],
)
def test_a_process_that_was_taken_over_answers_nonsense_and_nothing_else(tmp_path: Path, answer: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def lie() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    liar = threading.Thread(target=lie)
    liar.start()
    peer = Peer(tmp_path / "s")
    try:
        with pytest.raises((ModelyardError, EOFError)):
            predicted_of(peer.call(ASK, (), 5.0))
    finally:
        peer.close()
        liar.join(10)
        listener.close()


def test_the_sockets_are_this_users_alone(shared: Isolation, plain: Packed) -> None:
    runtime = loaded(shared[0], plain)

    address = shared[0].address(runtime.loaded)
    assert address.stat().st_mode & 0o077 == 0
    assert address.parent.stat().st_mode & 0o077 == 0


def test_a_version_that_another_server_holds_too_is_held_again_after_a_lost_connection(plain: Packed) -> None:
    with an_isolation() as (_, host):
        host.connect().close()
        assert host._folder is not None
        one, other = (IsolatedRuntimes(SideContainer(host._folder / "runtime.sock"), call_s=5.0) for _ in range(2))
        mine, theirs = loaded(one, plain), loaded(other, plain)
        process = mine.loaded.process
        assert one._control is not None
        one._control.close()
        one.keep()
        del theirs
        other.keep()

        assert outcome(mine, rows_of(0.5)) == "answered"
        assert (mine.loaded.process, psutil.pid_exists(process)) == (process, True)
        assert (host._folder / mine.load.folder).is_dir(), "it is shown for as long as somebody needs it"
        one.close()
        other.close()
