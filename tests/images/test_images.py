"""Each image as a hardened cluster runs it: read-only, an unprivileged user, no capability, no shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard_bundle.packaging import Packed, pack
from modelyard_contracts.bundle_v1 import Column, Lineage, Signature
from sklearn.linear_model import LogisticRegression

from tests.images.containers import HARDENED, await_answer, eventually, serving
from tools.images.build import Built, build
from tools.images.catalog import IMAGES, USER
from tools.images.engine import Engine, EngineError, podman

# A first build fetches every dependency; the limit is for the tests alone.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300, func_only=True)]

Build = Callable[[str], Built]
# The operator serves too, where there is a cluster: the tests of the whole platform run it.
SERVING = [package for package, image in IMAGES.items() if image.port and package != "operator"]

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if ".migrations" not in name:
        importlib.import_module(name)
print(len(names))
"""

FIND = "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))"


@pytest.mark.parametrize("package", IMAGES)
def test_image_keeps_its_size_budget(built: Build, package: str) -> None:
    image = built(package)

    assert image.fits, f"{image.added_mb:.1f} MB over the base, {image.image.budget_mb} were promised"


@pytest.mark.parametrize("package", SERVING)
def test_service_starts_read_only_answers_turns_healthy_and_drains(
    engine: Engine, built: Build, tmp_path: Path, package: str
) -> None:
    image = built(package)

    with serving(engine, image.image, image.tag, tmp_path, "--health-interval=1s") as (container, url):
        live = await_answer(engine, container, f"{url}/health/live")
        denied = await_answer(engine, container, f"{url}/metrics-of-nobody")
        health = eventually(lambda: _turned_healthy(engine, container), lambda: str(_state(engine, container)))
        user = engine.run("exec", container, "/app/bin/python", "-I", "-c", "import os; print(os.getuid())")
        engine.run("stop", "--time=30", container)
        code = _state(engine, container)["ExitCode"]

    assert live.status_code == 200
    assert denied.status_code == 401, "an image asks for a token unless it is told otherwise"
    assert health == "healthy"
    assert user == str(USER)
    assert code == 0, "SIGTERM is a drain, not a crash"


@pytest.mark.parametrize("package", SERVING)
def test_health_check_fails_when_nobody_answers(engine: Engine, built: Build, package: str) -> None:
    tag = built(package).tag
    check = _config(engine, tag)["Healthcheck"]["Test"]

    with pytest.raises(EngineError, match="does not answer on port"):
        engine.run("run", "--rm", "--network=none", *HARDENED, f"--entrypoint={check[1]}", tag, *check[2:])


@pytest.mark.parametrize("package", IMAGES)
def test_member_imports_nothing_that_its_image_lacks(engine: Engine, built: Build, package: str) -> None:
    image = built(package)

    imported = _python(engine, image.tag, IMPORT_ALL, image.image.module)

    assert int(imported) > 5


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("registry", ["numpy", "scipy", "sklearn", "pandas", "pyarrow", "mlflow"]),
        ("inference", ["scipy", "sklearn", "skops", "pandas", "pyarrow", "mlflow", "sqlalchemy"]),
        (
            "inference-runtime",
            ["pyarrow", "sqlalchemy", "modelyard_inference", "modelyard_client"],
        ),
        ("training", ["sklearn", "skops", "pandas", "mlflow", "onnxruntime"]),
        ("drift", ["sklearn", "pandas", "mlflow", "onnxruntime"]),
        ("operator", ["numpy", "sqlalchemy", "mlflow", "modelyard_training", "modelyard_registry"]),
        ("trainer", ["sqlalchemy", "modelyard_training", "modelyard_registry", "modelyard_inference"]),
        ("cli", ["sklearn", "scipy", "mlflow", "onnxruntime", "sqlalchemy", "modelyard_inference", "modelyard_bundle"]),
        *((package, ["pip", "setuptools", "pytest", "uv"]) for package in IMAGES),
    ],
)
def test_image_carries_only_what_its_member_needs(
    engine: Engine, built: Build, package: str, absent: list[str]
) -> None:
    assert json.loads(_python(engine, built(package).tag, FIND, *absent)) == []


@pytest.mark.parametrize("package", IMAGES)
def test_image_needs_no_shell_and_says_what_it_is(engine: Engine, built: Build, package: str) -> None:
    config = _config(engine, built(package).tag)

    check = config["Healthcheck"]["Test"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/app/bin/python", "-P", "-m", f"{IMAGES[package].module}.main"]
    assert check[0] == ("CMD" if IMAGES[package].port or IMAGES[package].socket else "NONE"), (
        "CMD-SHELL would need a shell"
    )
    assert config["Labels"]["org.opencontainers.image.title"] == f"modelyard-{package}"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(config["Labels"]["org.opencontainers.image.revision"]) == 40


def test_inference_runtime_starts_read_only_turns_healthy_and_loads_nothing_that_is_not_its_digest(
    engine: Engine, built: Build
) -> None:
    image = built("inference-runtime")
    probe = """
import sys
from modelyard_bundle.isolated import LOAD, STATUS, Load, Peer, Status, decoded
peer = Peer("/data/runtime.sock")
try:
    peer.call(LOAD, Load("/data", "sha256:" + "0" * 64, "sklearn"), 60.0)
except Exception as error:
    print(type(error).__name__)
print(decoded(peer.call(STATUS, (), 5.0), Status).versions)
"""
    options = ("--detach", "--network=none", *HARDENED, "--health-interval=1s")
    container = engine.run("run", *options, image.tag)
    try:
        health = eventually(lambda: _turned_healthy(engine, container), lambda: str(_state(engine, container)))
        said = engine.run("exec", container, "/app/bin/python", "-P", "-c", probe).splitlines()
        engine.run("stop", "--time=30", container)
        code = _state(engine, container)["ExitCode"]
    finally:
        engine.run("rm", "--force", "--volumes", container)

    assert health == "healthy"
    assert said == ["Invalid", "()"]
    assert code == 0, "SIGTERM is an end, not a crash"


ASK_THE_RUNTIME = """
from pathlib import Path
from modelyard_bundle.manifest import bundle_digest, read_manifest
from modelyard_bundle.probe import replay
from modelyard_inference.adapters.isolated import IsolatedRuntimes
from modelyard_inference.adapters.isolated_process import SideContainer
folder = Path("/bundle")
manifest = read_manifest(folder)
beside = IsolatedRuntimes(SideContainer(Path("/run/modelyard/runtime.sock")), call_s=60.0)
runtime = beside.load(folder, manifest, str(bundle_digest(manifest)), "sklearn")
replay(runtime, manifest.signature, folder)
print(runtime.name, sorted(path.name for path in Path("/run/modelyard").iterdir()))
"""


def test_inference_runs_what_its_image_cannot_by_the_runtime_beside_it(
    engine: Engine, built: Build, tmp_path: Path
) -> None:
    server, beside = built("inference").tag, built("inference-runtime").tag
    bundle = _bundle(tmp_path / "bundle")
    tmp_path.chmod(0o755)
    volume = engine.run("volume", "create")
    container = engine.run("run", "--detach", "--network=none", *HARDENED, f"--volume={volume}:/data", beside)
    try:
        eventually(lambda: _turned_healthy(engine, container), lambda: engine.run("logs", container))
        mounts = (f"--volume={volume}:/run/modelyard", f"--volume={bundle.folder}:/bundle:ro")
        command = ("--entrypoint=/app/bin/python", server, "-P", "-c", ASK_THE_RUNTIME)
        said = engine.run("run", "--rm", "--network=none", *HARDENED, *mounts, *command)
    finally:
        engine.run("rm", "--force", "--volumes", container)
        engine.run("volume", "rm", volume)

    assert said == f"sklearn {sorted([f'{bundle.digest.hex[:16]}.sock', 'bundles', 'runtime.sock'])}"


def test_inference_runtime_has_the_flavours_that_are_promised(engine: Engine, built: Build) -> None:
    flavours = "mlflow.pyfunc, mlflow.xgboost, skops.io, sklearn.ensemble, xgboost"
    probe = f"import {flavours}; print(xgboost.Booster().attributes())"

    assert _python(engine, built("inference-runtime").tag, probe).splitlines()[-1] == "{}"


def _bundle(folder: Path) -> Packed:
    """Pack a small model that answers whether its one number is positive."""
    load = np.linspace(-1, 1, 100, dtype=np.float32)
    columns = (Column(name="load", type="number"),)
    return pack(
        folder,
        model="power",
        estimator=LogisticRegression().fit(load.reshape(-1, 1), (load > 0).astype(int)),
        signature=Signature(task="classification", features=columns, target="up", classes=(0, 1), positive_class=1),
        sample={"load": load},
        lineage=Lineage(run="r", dataset="sha256:" + "0" * 64, estimator="logistic_regression"),
        baseline_json="{}",
        metrics=(),
        created=datetime(2026, 3, 1, tzinfo=UTC),
    )


def test_trainer_runs_as_its_launcher_starts_it_and_names_a_missing_job(engine: Engine, built: Build) -> None:
    command = ("-P", "-m", "modelyard_trainer.main", "/tmp/absent/job.json")

    with pytest.raises(EngineError, match="the job file cannot be read"):
        engine.run("run", "--rm", "--network=none", *HARDENED, "--entrypoint=python", built("trainer").tag, *command)


def test_nothing_but_data_and_temporary_files_can_be_written(engine: Engine, built: Build) -> None:
    probe = """
import os, pathlib
for folder in ("/data", "/tmp", "/app", "/opt/modelyard", "/etc", "/var/tmp", "/usr/lib", "/"):
    try:
        (pathlib.Path(folder) / "probe").write_text("x")
    except OSError:
        continue
    print(folder)
print([folder for folder in ("/", "/app", "/opt", "/opt/modelyard", "/etc") if os.stat(folder).st_uid != 0])
"""
    assert _python(engine, built("registry").tag, probe).split() == ["/data", "/tmp", "[]"]


def test_same_sources_give_the_same_layers(
    engine: Engine, built: Build, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    image = built("registry").image
    # Both without cache: it tells files by their content, and so hands out those of another time.
    builds = [build(engine, image, base=base_image, version=name, extra=["--no-cache"]) for name in ("first", "again")]

    layers = [engine.inspect(item.tag)["RootFS"] for item in builds]
    assert layers[0] == layers[1]


@pytest.mark.parametrize("package", SERVING)
def test_the_same_image_runs_under_podman(engine: Engine, built: Build, tmp_path: Path, package: str) -> None:
    image = built(package)
    archive = tmp_path / "image.tar"
    engine.run("save", "--output", str(archive), image.tag)
    secrets = tmp_path / "secrets"
    secrets.mkdir()

    with podman() as other:
        # Podman files it under a registry's name, which differs from version to version.
        loaded = other.run("load", "--quiet", "--input", str(archive)).rpartition(" ")[2]
        with serving(other, image.image, loaded, secrets) as (container, url):
            live = await_answer(other, container, f"{url}/health/live")
            check = other.run("healthcheck", "run", container)

    assert live.status_code == 200
    assert check in ("", "healthy")


def _python(engine: Engine, tag: str, code: str, *arguments: str) -> str:
    """Run code in a fresh container without network, and return what it printed."""
    entry = ("--entrypoint=/app/bin/python", tag, "-I", "-c", code)
    return engine.run("run", "--rm", "--network=none", *HARDENED, *entry, *arguments)


def _config(engine: Engine, tag: str) -> dict[str, Any]:
    return engine.inspect(tag)["Config"]


def _state(engine: Engine, container: str) -> dict[str, Any]:
    return engine.inspect(container, "container")["State"]


def _turned_healthy(engine: Engine, container: str) -> str | None:
    status = _state(engine, container)["Health"]["Status"]
    return None if status == "starting" else status
