"""The platform of docker-compose.yml, lived through in order: up, the loop, crashes, up again, down.

A start is expensive on two cores, so the tests of this module share one and follow its life; each says what the
platform has come to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_cli.demo.holding import Holder
from modelyard_cli.demo.replayer import Replayer
from modelyard_cli.demo.stream import Stream, find_example, load_stream
from modelyard_cli.manifests import with_uploaded_data
from modelyard_client import Modelyard
from modelyard_common.testing.required import unavailable
from modelyard_contracts.bundle_v1 import MANIFEST_FILE

from tests.compose.definition import BESIDE, MIGRATED, OURS
from tests.compose.running import LASTING, ONCE, Running, build_others, compose_command, running
from tools.compose.secrets import DATABASES
from tools.images.build import Built, build
from tools.images.catalog import TRAINING_WITH_TRAINER
from tools.images.engine import Engine, EngineError

# A first build fetches every dependency, and the start waits for health; the limit is for the tests alone.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300, func_only=True)]

MODEL = "electricity"
# Enough of the stream for a drift, a run, a rollout through both steps, and a window of the new champion.
ROWS = 1400
# Of the rest, for each crash: four blocks of the replayer, 25 rows each. A label comes 48 rows after its row.
MORE = 100
# After so many of them: while no labels are due, rows are asked; afterwards some have just been acknowledged.
CRASHES = (("drift", 25), ("drift", 75), ("inference", 75), ("registry", 75), ("training", 75), ("postgres", 75))
LISTED = """
import boto3
found = boto3.client("s3", endpoint_url="http://object-store:7070").list_objects_v2(Bucket="modelyard")
print("\\n".join(one["Key"] for one in found.get("Contents", [])))
"""


@pytest.fixture(scope="module")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line that is seen although output is captured: how long what precedes the tests takes."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"\ncompose: {line}\n")

    return write


@pytest.fixture(scope="module")
def images(
    engine: Engine, base_image: str, built: Callable[[str], Built], say: Callable[[str], None]
) -> dict[str, Built]:
    """Our images as compose names them, by service."""
    started = time.monotonic()
    made = {name: built(name) for name in (*OURS, *BESIDE) if name != "training"}
    made["training"] = build(engine, TRAINING_WITH_TRAINER, base=base_image)
    say(f"four images built in {time.monotonic() - started:.0f} s")
    return made


@pytest.fixture(scope="module")
def platform(
    engine: Engine,
    base_image: str,
    images: dict[str, Built],
    secrets: Path,
    tmp_path_factory: pytest.TempPathFactory,
    say: Callable[[str], None],
) -> Iterator[Running]:
    """The platform, all of it healthy."""
    started = time.monotonic()
    try:
        others = build_others(engine, base_image)
        command = compose_command()
    except EngineError as error:
        unavailable(str(error))
    say(f"the images of others took {time.monotonic() - started:.0f} s")
    started = time.monotonic()
    scratch = tmp_path_factory.mktemp("running")
    with running(engine, command, images=images, others=others, secrets=secrets, scratch=scratch) as platform:
        say(f"a start from nothing took {time.monotonic() - started:.0f} s")
        yield platform


@pytest.fixture(scope="module")
def admin(platform: Running) -> Iterator[Modelyard]:
    """The platform as an administrator reaches it."""
    with platform.client("admin") as clients:
        yield clients


@pytest.fixture(scope="module")
def stream() -> Stream:
    """The beginning of the example's recorded stream."""
    return load_stream(find_example(MODEL), None, ROWS + MORE * len(CRASHES))


def test_training_beside_its_trainer_keeps_its_size_budget(images: dict[str, Built]) -> None:
    image = images["training"]

    assert image.fits, f"{image.added_mb:.1f} MB over the base, {image.image.budget_mb} were promised"


def test_what_does_its_work_once_has_ended_well_and_the_rest_has_never_been_restarted(platform: Running) -> None:
    codes = {name: platform.container(name)["State"]["ExitCode"] for name in ONCE}
    restarts = {name: platform.container(name)["RestartCount"] for name in LASTING}

    assert codes == dict.fromkeys(ONCE, 0)
    assert restarts == dict.fromkeys(LASTING, 0)
    assert {f"{name}-migration" for name in (*MIGRATED, "mlflow")} < set(codes)


def test_every_database_is_utf8_and_belongs_to_its_own_role(platform: Running) -> None:
    query = "SELECT datname, pg_encoding_to_char(encoding), pg_get_userbyid(datdba) FROM pg_database ORDER BY 1"
    said = platform.call("postgres", "psql", "--username=postgres", "--tuples-only", "--csv", f"--command={query}")

    rows = [line.split(",") for line in said.splitlines()]
    assert {tuple(row) for row in rows if row[0] in DATABASES} == {(name, "UTF8", name) for name in DATABASES}


@pytest.mark.parametrize("service", OURS)
def test_a_service_answers_its_health_to_anybody_and_nothing_else(platform: Running, service: str) -> None:
    url = platform.url(service)

    assert httpx.get(f"{url}/health/ready").json()["status"] == "ready"
    assert httpx.get(f"{url}/v1/models").status_code == 401
    wrong = {"authorization": "Bearer " + (platform.secrets / "client").read_text().strip()[:-1]}
    assert httpx.get(f"{url}/v1/models", headers=wrong).status_code == 401


def test_the_demo_closes_the_loop_and_no_request_fails(platform: Running, admin: Modelyard, stream: Stream) -> None:
    manifest, _ = with_uploaded_data(stream.manifest_of_history(), stream.data, admin.training)
    admin.registry.apply(manifest)
    platform.eventually(lambda: admin.inference.ready(MODEL), "training", "registry", "inference")

    answers = _replay(platform, admin, _part(stream, 0, ROWS), Holder(admin, MODEL, lambda: None)).answers

    runs = admin.training.runs(MODEL)
    windows = admin.drift.windows(MODEL)
    assert [answer.failure for answer in answers if answer.failure] == []
    assert {run.state for run in runs} == {"succeeded"}, [(run.trigger.kind, run.reason) for run in runs]
    assert [run.trigger.kind for run in runs[-2:]] == ["drift", "spec"]
    versions = {version.digest: version.number for version in admin.registry.versions(MODEL)}
    assert {versions[answer.version] for answer in answers} == {1, 2}, "no retrained version ever answered"
    champion = admin.registry.model(MODEL).champion
    assert champion is not None
    assert champion.number == 2
    assert answers[-1].version == champion.digest
    full = [window for window in windows if window.closed_by == "rows"]
    assert {versions[window.reference] for window in full} == {1, 2}, "each champion had a window on its own edges"


def test_bundles_lie_in_the_object_store(platform: Running, admin: Modelyard) -> None:
    names = platform.call("mlflow", "python", "-c", LISTED).splitlines()

    manifests = [name for name in names if name.endswith(f"/{MANIFEST_FILE}")]
    assert len(manifests) >= len(admin.registry.versions(MODEL)) >= 2, names


def test_prometheus_scrapes_all_four_services_evaluates_the_rules_and_finds_alertmanager(platform: Running) -> None:
    prometheus = platform.url("prometheus")

    def up() -> dict[str, str]:
        found = httpx.get(f"{prometheus}/api/v1/query", params={"query": 'up{namespace="compose"}'}).json()
        return {one["metric"]["instance"].partition(":")[0]: one["value"][1] for one in found["data"]["result"]}

    def rules() -> set[str]:
        groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    platform.eventually(lambda: up() == dict.fromkeys(OURS, "1"), "prometheus")
    platform.eventually(lambda: rules() == {"ok"}, "prometheus")
    managers = httpx.get(f"{prometheus}/api/v1/alertmanagers").json()["data"]["activeAlertmanagers"]
    assert [one["url"] for one in managers] == ["http://alertmanager:9093/api/v2/alerts"]
    assert httpx.get(f"{platform.url('alertmanager')}/-/ready").status_code == 200


@pytest.mark.parametrize(("service", "row"), CRASHES)
def test_a_killed_service_is_started_again_and_nothing_acknowledged_is_lost(
    platform: Running, admin: Modelyard, stream: Stream, service: str, row: int
) -> None:
    before = _told(admin)
    start = ROWS + MORE * CRASHES.index((service, row))
    settle = Holder(admin, MODEL, lambda: None)

    def hold(answered: int) -> None:
        if answered != row:
            settle(len(before["predictions"]) + answered)
            return
        platform.kill(service)
        if service == "inference":  # one replica: while it is away there is nobody to answer
            platform.await_healthy(service)

    replayer = _replay(platform, admin, _part(stream, start, start + MORE), hold)
    platform.await_healthy(*LASTING)

    after = _told(admin)
    assert [answer.failure for answer in replayer.answers if answer.failure] == []
    assert {f"{answer.prediction_id}/0" for answer in replayer.answers} == after["predictions"] - before["predictions"]
    assert replayer.labels_sent > 0
    assert after["labels"] == before["labels"] + replayer.labels_sent
    for kind, known in before.items():
        assert known <= after[kind], f"{kind} were lost"


def test_a_restart_of_all_services_loses_nothing(platform: Running, admin: Modelyard) -> None:
    before = _told(admin)

    platform.compose.run("restart", *OURS)
    platform.await_healthy(*OURS)
    platform.eventually(lambda: admin.inference.ready(MODEL), "inference")

    assert _told(admin) == before


def test_a_second_up_changes_nothing(platform: Running, admin: Modelyard) -> None:
    def lasting() -> dict[str, Any]:
        found = {name: platform.container(name) for name in LASTING}
        return {name: (one["Id"], one["State"]["StartedAt"]) for name, one in found.items()}

    before, known = lasting(), _told(admin)

    platform.up()

    assert lasting() == before
    assert {platform.container(name)["State"]["ExitCode"] for name in ONCE} == {0}
    assert _told(admin) == known


def test_down_leaves_no_container_no_volume_and_no_network(platform: Running) -> None:
    mounts = [mount for name in (*LASTING, *ONCE) for mount in platform.container(name)["Mounts"]]
    unnamed = [mount for mount in mounts if mount["Type"] == "volume" and len(mount["Name"]) == 64]

    platform.down()

    assert unnamed == [], "compose loses sight of a volume without a name once its container is made anew"
    assert platform.left() == {"container": "", "volume": "", "network": ""}


def _part(stream: Stream, start: int, end: int) -> Stream:
    rows = slice(start, end)
    return replace(stream, features=stream.features[rows], times=stream.times[rows], truths=stream.truths[rows])


def _replay(platform: Running, admin: Modelyard, part: Stream, hold: Callable[[int], None]) -> Replayer:
    """Replay rows as the client that they come from."""
    token = (platform.secrets / "client").read_text().strip()
    replayer = Replayer(part, [platform.url("inference")], admin.drift, hold, lambda: None, lambda _: None, token=token)
    replayer.run()
    return replayer


def _told(admin: Modelyard) -> dict[str, Any]:
    """Return what the platform has acknowledged, by kind; the labels of it are counted."""
    return {
        "versions": {version.digest for version in admin.registry.versions(MODEL)},
        "runs": {run.id for run in admin.training.runs(MODEL)},
        "windows": {window.id for window in admin.drift.windows(MODEL) if window.state != "open"},
        "predictions": set(admin.drift.prediction_ids(MODEL)),
        "labels": admin.drift.status(MODEL).labels,
    }
