"""Swaps lose no request; what was tampered with or answers otherwise never serves; a restart needs no registry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from inference_fakes import GOOD_ROW, ListReports, Platform, a_server, digest_of, eventually
from modelyard_bundle.manifest import list_files, read_manifest, write_manifest
from modelyard_bundle.packaging import Packed
from modelyard_bundle.runtimes.base import Runtime
from modelyard_common.errors import Invalid, NotFound, Unavailable
from modelyard_common.testing import FakeClock, free_port
from modelyard_contracts.bundle_v1 import BundleManifest
from modelyard_inference.adapters.bundles import BundleCache, hold
from modelyard_inference.adapters.metrics import ResidentCounts
from modelyard_inference.adapters.runtimes import InProcess
from modelyard_inference.domain.routing import Candidate, Routing, Version
from modelyard_inference.usecases.lifecycle import Lifecycle
from modelyard_inference.usecases.residents import Residents
from modelyard_inference.usecases.serving import ServedModels

ROWS = {"dataframe_records": [GOOD_ROW]}


@dataclass
class FolderSource:
    """Hands out bundles from folders."""

    folders: dict[str, Path] = field(default_factory=dict)
    away: bool = False
    downloads: int = 0

    def download_bundle(self, model: str, digest: str, into: Path) -> Path:
        if self.away or digest not in self.folders:
            raise Unavailable("the registry is away")
        self.downloads += 1
        shutil.copytree(self.folders[digest], into, dirs_exist_ok=True)
        return into


class ListShelf:
    def __init__(self) -> None:
        self.saved: list[Routing] = []

    def save(self, routings: list[Routing]) -> None:
        self.saved = list(routings)


@dataclass
class Works:
    """A lifecycle around real bundles."""

    root: Path
    first: Packed
    second: Packed
    runtimes: InProcess = field(default_factory=InProcess)

    def __post_init__(self) -> None:
        self.source = FolderSource({str(one.digest): one.folder for one in (self.first, self.second)})
        self.cache = BundleCache(self.root / "bundles", self.source)
        self.served, self.reports, self.shelf, self.clock = ServedModels(), ListReports(), ListShelf(), FakeClock()
        self.lifecycle = Lifecycle(
            served=self.served,
            bundles=self.cache,
            runtimes=self.runtimes,
            residents=Residents(0, frozenset(), ResidentCounts(), self.clock),
            reports=self.reports,
            shelf=self.shelf,
            clock=self.clock,
        )
        self.one, self.two = Version(1, str(self.first.digest)), Version(2, str(self.second.digest))

    def want(self, revision: int, champion: Version | None, candidate: Candidate | None = None) -> None:
        self.lifecycle.wish(Routing("power", revision, champion, candidate))
        self.lifecycle.reconcile()

    @property
    def in_force(self) -> tuple[int, int, int | None]:
        """Revision, champion, candidate."""
        serving = self.served.find("power")
        candidate = serving.candidate.version.number if serving.candidate else None
        return serving.routing.revision, serving.champion.version.number, candidate


@pytest.fixture
def works(tmp_path: Path, bundles: tuple[Packed, Packed]) -> Works:
    return Works(tmp_path, *bundles)


def other_answers(bundle: Packed, folder: Path) -> Packed:
    """Return a bundle whose every byte verifies, and whose probe set was recorded from another model."""
    shutil.copytree(bundle.folder, folder)
    probe = json.loads((folder / "probe.json").read_text())
    probe["predictions"] = [1 - label for label in probe["predictions"]]
    (folder / "probe.json").write_text(json.dumps(probe))
    manifest = read_manifest(folder).model_copy(update={"files": list_files(folder)})
    return Packed(folder, write_manifest(folder, manifest), manifest)


def test_a_first_champion_is_fetched_checked_served_and_reported(works: Works) -> None:
    works.want(1, works.one)

    assert works.in_force == (1, 1, None)
    assert works.served.find("power").champion.runtime.name == "onnx"
    assert works.reports.told == [("power", works.one.digest, 1, "serving", "")]
    assert [routing.revision for routing in works.shelf.saved] == [1]


def test_a_candidate_that_becomes_champion_is_not_loaded_again(works: Works) -> None:
    works.want(1, works.one, Candidate(works.two, shadow=True))
    loaded = works.served.find("power").candidate
    works.want(2, works.two)

    assert works.served.find("power").champion is loaded
    assert [kept.version for kept in works.served.find("power").kept] == [works.one]
    assert works.source.downloads == 2


def test_models_are_told_of_before_the_first_of_them_is_loaded(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], list[str]]] = []
    download = works.source.download_bundle

    def looked(model: str, digest: str, into: Path) -> Path:
        works.served.must_know()
        seen.append((works.served.names, works.served.routed))
        return download(model, digest, into)

    monkeypatch.setattr(works.source, "download_bundle", looked)
    works.lifecycle.wish(Routing("power", 1, works.two))
    works.lifecycle.wish(Routing("other", 1, works.one))
    works.lifecycle.complete(["other", "power"])
    works.lifecycle.reconcile()

    assert seen == [([], ["other", "power"]), (["other"], ["other", "power"])]
    assert works.served.routed == works.served.names == ["other", "power"]


def test_a_rollback_finds_the_former_champion_still_loaded(works: Works) -> None:
    works.want(1, works.one)
    first = works.served.find("power").champion
    works.want(2, works.two)
    works.source.away = True
    works.want(3, works.one)

    assert works.served.find("power").champion is first


def test_an_older_revision_is_ignored_unless_the_registry_insists(works: Works) -> None:
    works.want(5, works.one)
    works.want(4, works.two)
    ignored = works.in_force
    works.lifecycle.wish(Routing("power", 4, works.two), older=True)
    works.lifecycle.reconcile()

    assert (ignored, works.in_force) == ((5, 1, None), (4, 2, None))


def test_a_breaker_outlives_the_steps_of_its_rollout_and_not_the_rollout(works: Works) -> None:
    works.want(1, works.one, Candidate(works.two, shadow=True))
    guard = works.served.find("power").guard
    works.want(2, works.one, Candidate(works.two, weight=25))
    same = works.served.find("power").guard
    works.want(3, works.one)
    works.want(4, works.one, Candidate(works.two, weight=25))

    assert same is guard
    assert works.served.find("power").guard is not guard


def test_a_rollout_begun_anew_has_a_breaker_of_its_own_though_its_abort_was_never_in_force(works: Works) -> None:
    works.want(1, works.one, Candidate(works.two, weight=25))
    guard = works.served.find("power").guard
    assert guard is not None
    while not guard.tripped:
        guard.failed()
    works.lifecycle.wish(Routing("power", 2, works.one))
    works.want(3, works.one, Candidate(works.two, weight=25))

    anew = works.served.find("power").guard
    assert anew is not None
    assert not anew.tripped


def test_a_candidate_that_was_unloaded_and_is_loaded_again_has_a_new_breaker(works: Works) -> None:
    works.want(1, works.one, Candidate(works.two, weight=25))
    guard = works.served.find("power").guard
    works.lifecycle.unload("power")
    works.lifecycle.load("power")

    assert works.served.find("power").guard is not guard


def test_a_champion_that_answers_its_probe_otherwise_never_replaces_one_that_serves(
    works: Works, tmp_path: Path
) -> None:
    bad = other_answers(works.second, tmp_path / "bad")
    works.source.folders[str(bad.digest)] = bad.folder
    works.want(1, works.one)
    works.want(2, Version(3, str(bad.digest)))

    assert works.in_force == (1, 1, None)
    (report,) = [told for told in works.reports.told if told[3] == "refused"]
    assert report[1:3] == (str(bad.digest), 2)
    assert "probe rows are not answered as recorded" in report[4]


def test_a_refused_candidate_leaves_the_champion_alone(works: Works, tmp_path: Path) -> None:
    bad = other_answers(works.second, tmp_path / "bad")
    works.source.folders[str(bad.digest)] = bad.folder
    works.want(1, works.one)
    works.want(2, works.one, Candidate(Version(3, str(bad.digest)), weight=50))
    downloads = works.source.downloads
    works.lifecycle.reconcile()

    assert works.in_force == (2, 1, None)
    assert works.reports.outcomes(str(bad.digest)) == ["refused"]
    assert works.source.downloads == downloads


def test_a_broken_twin_is_replaced_by_the_estimator_itself(works: Works, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(works.first.folder, folder)
    (folder / "model.onnx").write_bytes(b"no model")
    manifest = read_manifest(folder).model_copy(update={"files": list_files(folder)})
    digest = str(write_manifest(folder, manifest))
    works.source.folders[digest] = folder

    works.want(1, Version(4, digest))

    assert works.served.find("power").champion.runtime.name == "sklearn"


def test_a_tampered_cache_is_fetched_again(works: Works) -> None:
    works.want(1, works.one)
    cached = works.root / "bundles" / works.first.digest.hex / "probe.json"
    cached.write_text("{}")

    works.cache.open("power", works.one.digest)

    assert cached.read_bytes() == (works.first.folder / "probe.json").read_bytes()
    assert works.source.downloads == 2


def test_a_bundle_that_is_not_its_digest_is_refused_and_not_kept(works: Works) -> None:
    works.source.folders[works.one.digest] = works.second.folder

    works.want(1, works.one)

    with pytest.raises(Unavailable, match="cannot be loaded"):
        works.served.find("power")
    assert works.reports.outcomes(works.one.digest) == ["refused"]
    assert [path for path in (works.root / "bundles").iterdir() if path.is_dir()] == []


def test_while_the_registry_is_away_the_old_routing_stays_and_retries_are_spaced(works: Works) -> None:
    works.want(1, works.one)
    works.source.away = True
    works.want(2, works.two)
    works.source.away = False
    works.lifecycle.reconcile()
    too_soon = works.in_force
    works.clock.advance(1)
    works.lifecycle.reconcile()

    assert (too_soon, works.in_force) == ((1, 1, None), (2, 2, None))
    assert works.reports.outcomes(works.two.digest) == ["serving"]


def test_a_candidate_that_cannot_be_had_yet_keeps_nothing_else_of_its_revision_waiting(works: Works) -> None:
    works.want(1, works.one)
    works.source.away = True
    works.want(2, works.one, Candidate(works.two, weight=10))
    waiting, told = works.in_force, len(works.reports.told)
    works.clock.advance(1)
    works.lifecycle.reconcile()
    told_again = len(works.reports.told)
    works.source.away = False
    works.clock.advance(30)
    works.lifecycle.reconcile()

    assert (waiting, works.in_force) == ((2, 1, None), (2, 1, 2))
    assert told_again == told


def test_an_abort_and_what_is_redacted_hold_though_the_next_candidate_cannot_be_had(works: Works) -> None:
    works.want(1, works.one, Candidate(works.two, weight=50))
    gone = Candidate(Version(3, digest_of("f")), weight=5)
    works.lifecycle.wish(Routing("power", 2, works.one, gone, log_payloads=0.1, redact=frozenset({"load"})))
    works.lifecycle.reconcile()

    routing = works.served.find("power").routing
    assert works.in_force == (2, 1, None)
    assert (routing.log_payloads, routing.redact) == (0.1, {"load"})
    assert [saved.revision for saved in works.shelf.saved] == [2]


def test_a_server_that_starts_beside_a_rollout_serves_its_champion_before_its_candidate(works: Works) -> None:
    works.cache.open("power", works.one.digest)
    works.source.away = True

    works.want(2, works.one, Candidate(works.two, weight=10))
    alone = works.in_force
    works.source.away = False
    works.clock.advance(1)
    works.lifecycle.reconcile()

    assert (alone, works.in_force) == ((2, 1, None), (2, 1, 2))


def test_models_that_are_gone_are_forgotten(works: Works) -> None:
    works.want(1, works.one)
    works.lifecycle.complete([])
    works.lifecycle.reconcile()

    with pytest.raises(NotFound):
        works.served.find("power")
    assert not works.lifecycle.unsettled
    assert works.shelf.saved == []


def test_a_new_server_takes_no_requests_before_it_has_every_champion_that_can_be_had(works: Works) -> None:
    works.lifecycle.reconcile()
    unheard = works.lifecycle.unsettled
    works.source.away = True
    works.want(1, works.one)
    works.lifecycle.complete(["power"])
    works.lifecycle.reconcile()
    without = works.lifecycle.unsettled
    works.source.away = False
    works.clock.advance(1)
    works.lifecycle.reconcile()

    assert unheard.startswith("the registry has not been heard yet")
    assert without.startswith("power: ")
    assert works.in_force == (1, 1, None)
    assert not works.lifecycle.unsettled


def test_a_bundle_that_is_lost_holds_up_a_new_server_only_for_so_long(works: Works) -> None:
    works.source.away = True
    works.want(1, works.one)
    works.lifecycle.complete(["power"])
    works.lifecycle.reconcile()
    works.clock.advance(59)
    works.lifecycle.reconcile()
    waits = works.lifecycle.unsettled
    works.clock.advance(1)
    works.lifecycle.reconcile()

    assert waits
    assert not works.lifecycle.unsettled


def test_what_nobody_foresaw_of_one_bundle_is_tried_again_later_and_stops_no_other_model(
    works: Works, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fetch, asked = works.source.download_bundle, []

    def download(model: str, digest: str, into: Path) -> Path:
        asked.append(model)
        if model == "alpha":
            raise ValueError("embedded null byte in a secret")
        return fetch(model, digest, into)

    monkeypatch.setattr(works.source, "download_bundle", download)
    works.lifecycle.wish(Routing("alpha", 1, works.two))
    works.want(1, works.one)
    works.lifecycle.complete(["alpha", "power"])
    works.lifecycle.reconcile()
    waits = works.lifecycle.unsettled
    works.clock.advance(60)
    works.lifecycle.reconcile()

    assert works.in_force == (1, 1, None)
    assert asked.count("alpha") == 2
    assert waits == "alpha: version 2 cannot be loaded here (ValueError)"
    assert not works.lifecycle.unsettled
    assert "secret" not in caplog.text


def test_what_nobody_foresaw_of_a_candidate_leaves_its_revision_in_force(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    works.want(1, works.one)

    def download(*_: object) -> Path:
        raise ValueError

    monkeypatch.setattr(works.source, "download_bundle", download)
    works.want(2, works.one, Candidate(works.two, weight=25))

    assert works.in_force == (2, 1, None)


def test_a_champion_that_is_refused_holds_up_nobody(works: Works, tmp_path: Path) -> None:
    damaged = other_answers(works.first, tmp_path / "damaged")
    works.source.folders[str(damaged.digest)] = damaged.folder
    works.want(1, Version(1, str(damaged.digest)))
    works.lifecycle.complete(["power"])
    works.lifecycle.reconcile()

    assert works.reports.told[-1][3] == "refused"
    assert not works.lifecycle.unsettled


def test_a_version_whose_runtime_is_not_installed_is_refused_with_what_would_serve_it(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> object:
        raise ModuleNotFoundError("No module named 'skops'", name="skops")

    monkeypatch.setattr("modelyard_inference.adapters.runtimes.load", missing)
    works.want(1, works.one)

    _, _, _, kind, reason = works.reports.told[-1]
    assert kind == "refused"
    assert "skops is not installed" in reason
    assert "ONNX twin" in reason


def test_a_server_that_was_restarted_needs_no_registry(works: Works) -> None:
    works.lifecycle.restore([Routing("power", 1, works.one)])
    works.lifecycle.reconcile()

    assert works.in_force == (1, 1, None)
    assert not works.lifecycle.unsettled
    with pytest.raises(Unavailable, match="does not know its models"):  # of others, which may be new
        works.served.find("other")


def test_a_server_that_once_could_do_its_job_stays_ready(works: Works) -> None:
    works.want(1, works.one)
    works.lifecycle.complete(["power"])
    works.lifecycle.reconcile()
    works.source.away = True
    works.lifecycle.wish(Routing("other", 1, works.two))
    works.lifecycle.reconcile()

    assert not works.lifecycle.unsettled


def test_the_cache_keeps_the_latest_bundles_and_clears_half_downloads(works: Works) -> None:
    root = works.root / "bundles"
    (root / ".part-left").mkdir()
    cache = BundleCache(root, works.source, most=1)
    cache.open("power", works.one.digest)
    os.utime(root / works.first.digest.hex, (1, 1))
    cache.open("power", works.two.digest)

    assert [path.name for path in root.iterdir() if path.is_dir()] == [works.second.digest.hex]


def test_a_bundle_that_is_held_stays_until_it_is_let_go(works: Works) -> None:
    root = works.root / "bundles"
    cache, others = (BundleCache(root, works.source, most=1) for _ in range(2))
    first, _ = cache.open("power", works.one.digest)
    os.utime(first, (1, 1))
    held = hold(first)
    second, _ = others.open("power", works.two.digest)
    beside = first.is_dir() and second.is_dir()
    os.close(held)
    shutil.rmtree(second)
    others.open("power", works.two.digest)

    assert beside
    assert not first.exists()


def test_a_bundle_stays_while_it_is_loaded_though_others_take_the_room_of_the_cache(
    tmp_path: Path, bundles: tuple[Packed, Packed]
) -> None:
    class WhileOthersFetch(InProcess):
        def load(self, folder: Path, manifest: BundleManifest, digest: str, name: str) -> Runtime:
            runtime = super().load(folder, manifest, digest, name)
            os.utime(folder, (1, 1))
            BundleCache(folder.parent, works.source, most=1).open("other", works.two.digest)
            return runtime

    works = Works(tmp_path, *bundles, runtimes=WhileOthersFetch())

    works.want(1, works.one)

    assert works.in_force == (1, 1, None)
    assert works.reports.outcomes(works.one.digest) == ["serving"]


def test_what_is_cached_opens_while_another_bundle_is_on_its_way(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    works.cache.open("power", works.one.digest)
    fetch, begun, go = works.source.download_bundle, threading.Event(), threading.Event()

    def slowly(model: str, digest: str, into: Path) -> Path:
        begun.set()
        assert go.wait(30)
        return fetch(model, digest, into)

    monkeypatch.setattr(works.source, "download_bundle", slowly)
    root = works.root / "bundles"
    with ThreadPoolExecutor(3) as threads:
        coming = [threads.submit(works.cache.open, "power", works.two.digest) for _ in range(2)]
        try:
            assert begun.wait(10)
            opened = threads.submit(works.cache.open, "power", works.one.digest).result(10)
            another = BundleCache(root, works.source)  # as another process begins: what is on its way stays
        finally:
            go.set()
        found = {one.result(30)[0] for one in coming}

    assert opened[0].is_dir()
    assert found == {another.open("power", works.two.digest)[0]}
    assert works.source.downloads == 2
    assert not list(root.glob(".part-*"))


def test_a_cache_that_cannot_be_written_is_unavailable_not_a_crash(works: Works, tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "gone", works.source)
    shutil.rmtree(tmp_path / "gone")

    with pytest.raises(Unavailable, match="cannot be written"):
        cache.open("power", works.one.digest)


def test_a_digest_that_is_none_is_refused(works: Works) -> None:
    works.want(1, replace(works.one, digest=digest_of("f")))

    with pytest.raises(Unavailable):
        works.served.find("power")
    with pytest.raises((Invalid, ValueError)):
        works.cache.open("power", "../../etc")


# ---- over sockets


def test_swaps_under_load_fail_no_request(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    digests = [str(bundle.digest) for bundle in bundles]
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def load(base_url: httpx.URL) -> None:
        with httpx.Client(base_url=base_url, trust_env=False) as http:
            while not stop.is_set():
                response = http.post("/models/power/invocations", json=ROWS)
                seen.append((response.status_code, response.headers.get("modelyard-version", "")))

    with a_server(platform, bundles) as http:
        callers = [threading.Thread(target=load, args=(http.base_url,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        for turn in range(6):
            before = len(seen)
            platform.registry.route("power", digests[turn % 2], digests[1 - turn % 2], weight=50 * (turn % 3 == 0))
            revision = platform.registry.tables["power"].revision
            eventually(lambda: http.get("/v1/served").json()["models"][0]["revision"] == revision)  # noqa: B023
            eventually(lambda: len(seen) > before + 20)  # noqa: B023
        stop.set()
        for caller in callers:
            caller.join(10)
        eventually(lambda: len(platform.drift.events) >= len(seen))

    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == set(digests)
    assert len(platform.drift.events) == len(seen)
    routed = {(event["revision"], event["champion"]) for event in platform.drift.events.values()}
    assert len({revision for revision, _ in routed}) == len(routed)


def test_a_restart_while_the_registry_is_away_serves_from_the_cache(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    with a_server(platform, bundles):
        pass

    with (
        platform.inference(registry_url=f"http://127.0.0.1:{free_port()}", stale_after_s=0.01) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        eventually(lambda: http.get("/v2/models/power/ready").status_code == 200)
        answer = http.post("/invocations", json=ROWS)
        eventually(lambda: "cannot be reached" in http.get("/health/ready").json()["checks"]["routing"])

        assert http.get("/health/ready").status_code == 200
        assert answer.json() == {"predictions": [1]}


def test_no_model_answers_for_another_while_a_server_learns_which_there_are(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    platform.registry.add(*bundles)
    for model in ("power", "other"):
        platform.registry.route(model, str(bundles[0].digest))
    told = platform.registry.held["other"] = threading.Event()
    with platform.inference() as url, httpx.Client(base_url=url, trust_env=False) as http:
        eventually(lambda: http.get("/v2/models/power/ready").status_code == 200)
        named = http.post("/models/power/invocations", json=ROWS)
        bare = http.post("/invocations", json=ROWS)
        told.set()
        eventually(lambda: "several models" in http.post("/invocations", json=ROWS).text)

    assert (named.status_code, bare.status_code, bare.headers.get("retry-after")) == (200, 503, "1")
    assert "does not know its models yet" in bare.text


def test_a_server_that_knows_nothing_is_not_ready_and_says_when_to_ask_again(platform: Platform) -> None:
    with (
        platform.inference(registry_url=f"http://127.0.0.1:{free_port()}") as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        answers = [http.get(path) for path in ("/health", "/health/ready", "/v2/health/ready", "/ping")]
        answers.append(http.post("/models/power/invocations", json=ROWS))

    assert [(answer.status_code, answer.headers.get("retry-after")) for answer in answers] == [(503, "1")] * 5
    assert answers[2].json() == {"ready": False}


def test_without_a_watch_the_registry_is_polled(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    platform.registry.watchable = False
    with a_server(platform, bundles) as http:
        platform.registry.route("power", str(bundles[1].digest))

        eventually(lambda: http.get("/v2/models/power").json()["versions"][0] == "2")


def test_a_bundle_that_is_damaged_on_the_way_is_refused_and_the_old_version_serves_on(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    with a_server(platform, bundles) as http:
        platform.registry.corrupt.add(str(bundles[1].digest))
        platform.registry.route("power", str(bundles[1].digest))
        eventually(lambda: "refused" in platform.registry.outcomes(bundles[1].digest))

        assert http.post("/invocations", json=ROWS).headers["modelyard-version"] == str(bundles[0].digest)

    reasons = [report.reason for report in platform.registry.reports if report.outcome == "refused"]
    assert "digest" in reasons[0]


def test_a_deleted_model_is_gone(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        table = platform.registry.tables["power"]
        platform.registry.publish(table.model_copy(update={"revision": 2, "deleted": True}))

        eventually(lambda: http.post("/models/power/invocations", json=ROWS).status_code == 404)


def test_a_shadow_step_logs_both_answers_under_one_id(platform: Platform, bundles: tuple[Packed, Packed]) -> None:
    with a_server(platform, bundles) as http:
        platform.registry.route("power", str(bundles[0].digest), str(bundles[1].digest), shadow=True)
        eventually(lambda: len(http.get("/v2/models/power").json()["versions"]) == 2)

        answer = http.post("/invocations", json=ROWS)
        (copy,) = eventually(lambda: platform.drift.role("shadow"))

    assert answer.headers["modelyard-version"] == str(bundles[0].digest)
    assert copy["id"] == answer.headers["modelyard-prediction-id"] + "/0"
    assert copy["version"] == str(bundles[1].digest)


def test_drift_away_fails_no_prediction_and_gets_every_event_later(
    platform: Platform, bundles: tuple[Packed, Packed]
) -> None:
    platform.drift.away = True
    with a_server(platform, bundles) as http:
        ids = [http.post("/invocations", json=ROWS).headers["modelyard-prediction-id"] for _ in range(5)]
        eventually(lambda: "events wait on disk" in http.get("/health/ready").json()["checks"]["drift"])
        platform.drift.away = False
        eventually(lambda: len(platform.drift.events) == 5)

    assert {event["id"] for event in platform.drift.role("champion")} == {f"{one}/0" for one in ids}


# ---- as a process


@pytest.fixture
def process(platform: Platform, bundles: tuple[Packed, Packed]) -> Iterator[tuple[Platform, int, list[str]]]:
    platform.registry.add(*bundles)
    platform.registry.route("power", str(bundles[0].digest))
    yield platform, free_port(), [sys.executable, "-m", "modelyard_inference.main"]


def start(platform: Platform, port: int, command: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "MODELYARD_INFERENCE_PORT": str(port),
        "MODELYARD_INFERENCE_GRPC_PORT": "0",
        "MODELYARD_INFERENCE_REGISTRY_URL": platform.registry_url,
        "MODELYARD_INFERENCE_DRIFT_URL": platform.drift_url,
        "MODELYARD_INFERENCE_DATA_DIR": str(platform.data_dir),
    }
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    eventually(lambda: is_ready(port), 30)
    return running


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/models/power/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_after_kill_9_of_the_server_every_id_that_a_client_saw_reaches_drift(
    process: tuple[Platform, int, list[str]],
) -> None:
    platform, port, command = process
    platform.drift.away = True
    server = start(platform, port, command)
    ids: list[str] = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        for number in range(200):
            ids.append(http.post("/invocations", json=ROWS).headers["modelyard-prediction-id"])
            if number == 199:
                server.send_signal(signal.SIGKILL)
    server.wait(10)

    platform.drift.away = False
    again = start(platform, port, command)
    eventually(lambda: {f"{one}/0" for one in ids} <= {event["id"] for event in platform.drift.role("champion")})
    again.send_signal(signal.SIGTERM)

    assert again.wait(15) == 0
    assert platform.drift.duplicates == 0


def test_sigterm_finishes_what_is_in_flight_and_flushes(process: tuple[Platform, int, list[str]]) -> None:
    platform, port, command = process
    server = start(platform, port, command)
    answered: list[httpx.Response] = []

    def load() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            try:
                while True:
                    answered.append(http.post("/invocations", json=ROWS))
            except httpx.HTTPError:
                return

    callers = [threading.Thread(target=load) for _ in range(2)]
    for caller in callers:
        caller.start()
    eventually(lambda: len(answered) > 50)
    server.send_signal(signal.SIGTERM)

    assert server.wait(15) == 0
    for caller in callers:
        caller.join(10)
    assert {response.status_code for response in answered} == {200}
    ids = {response.headers["modelyard-prediction-id"] + "/0" for response in answered}
    assert ids <= {event["id"] for event in platform.drift.role("champion")}
