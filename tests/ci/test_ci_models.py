"""Models as code: a merge request that changes a manifest is told what its merge would do, by the live registry."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from modelyard_client import RegistryClient
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_common.testing import running
from modelyard_contracts.managed_model_v1alpha1 import parse_manifest
from modelyard_registry.settings import RegistrySettings
from modelyard_registry.wiring import build
from modelyard_training.settings import TrainingSettings
from modelyard_training.wiring import build as build_training

from tests.ci.checkout import MERGE_REQUEST, SCHEDULE, Checkout
from tools.ci import models

pytestmark = pytest.mark.timeout(300, func_only=True)
"""Whichever test comes first waits for npm, which may take longer than a test may."""

NOBODY = "http://127.0.0.1:9"
MODELS = "deploy/argocd/envs/dev/models"
MANIFEST = f"""\
apiVersion: modelyard.dev/v1alpha1
kind: ManagedModel
metadata: {{name: fares}}
spec:
  task: regression
  data: {{source: {{uri: "dataset://sha256:{"0" * 64}"}}, target: fare}}
  train: {{recipe: {{estimator: ridge}}}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryClient]:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    upgrade(database, "modelyard_registry")
    settings = RegistrySettings(data_dir=tmp_path, mlflow_url=NOBODY, drift_url=NOBODY, drain_s=0)
    with running(build(settings, database)) as url, RegistryClient(url) as client:
        yield client
    database.close()


@pytest.fixture
def training(registry: RegistryClient, tmp_path: Path) -> Iterator[str]:
    database = Database(f"sqlite:///{tmp_path / 'training.db'}")
    upgrade(database, "modelyard_training")
    around = {"registry_url": registry.base_url, "mlflow_url": NOBODY, "drift_url": NOBODY, "drain_s": 0.0}
    settings = TrainingSettings(data_dir=tmp_path / "training", **around)
    with running(build_training(settings, database, background=False)) as url:
        yield url
    database.close()


@pytest.mark.skipif(not shutil.which("rsync"), reason="gitlab-ci-local copies the checkout with rsync")
def test_a_merge_request_is_told_what_its_merge_would_do(checkout: Checkout, registry: RegistryClient) -> None:
    checkout.change("docs/x.md")
    written(checkout, fares=MANIFEST, left=MANIFEST.replace("fares", "left"), lost=MANIFEST.replace("fares", "lost"))
    checkout.commit()
    base = checkout.git("rev-parse", "HEAD").strip()
    for name in ("fares", "left"):
        registry.apply(parse_manifest(yaml.safe_load(MANIFEST.replace("fares", name))))
    for name in ("left", "lost"):
        (checkout.folder / MODELS / f"{name}.yaml").unlink()
    changed = MANIFEST + "  gate: [{metric: r2, min: 0.5}]\n"
    written(checkout, fares=changed, delays=MANIFEST.replace("fares", "delays"))
    checkout.commit()
    told = {"MODELYARD_REGISTRY_URL": registry.base_url, "CI_MERGE_REQUEST_DIFF_BASE_SHA": base}

    done = checkout.ci("models-plan: [dev]", "--force-shell-executor", "--no-color", variables=MERGE_REQUEST | told)

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "model/fares would change, generation 2" in said
    assert '+ spec.gate[0]: {"metric": "r2", "min": 0.5}  (gate)' in said
    assert "later  gate: the next version is judged by these gates" in said
    assert "model/delays would be made, generation 1" in said
    assert "model/left would be deleted: it is trained and served no longer" in said
    assert "model/lost is no longer in git, and dev has it not" in said
    assert {(one.name, one.generation) for one in registry.models()} == {("fares", 1), ("left", 1)}


@pytest.mark.skipif(not shutil.which("rsync"), reason="gitlab-ci-local copies the checkout with rsync")
def test_a_schedule_for_a_model_that_is_not_there_fails_and_names_it(
    checkout: Checkout, registry: RegistryClient, training: str
) -> None:
    checkout.on_main()
    where = {"MODELYARD_REGISTRY_URL": registry.base_url, "MODELYARD_TRAINING_URL": training, "MODEL": "nothere"}

    done = checkout.ci("retrain", "--force-shell-executor", "--no-color", variables=SCHEDULE | where)

    said = done.stdout + done.stderr
    assert "there is no model 'nothere'; apply its manifest first" in said
    # WARN would be a failure that is allowed. The tool's own exit code knows no allow_failure by exit code.
    assert re.search(r"retrain finished in .* FAIL 3", said), "the command's own exit code, and not make's"


def test_a_plan_is_kept_for_the_merge_request(
    registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository(tmp_path, monkeypatch, fares=MANIFEST)
    monkeypatch.setenv("MODELYARD_REGISTRY_URL", registry.base_url)

    assert planned("dev") == 0

    assert (tmp_path / "build/models-plan.txt").read_text() == capsys.readouterr().out
    assert "model/fares would be made" in (tmp_path / "build/models-plan.txt").read_text()


def test_an_environment_without_models_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository(tmp_path, monkeypatch)
    monkeypatch.setenv("MODELYARD_REGISTRY_URL", NOBODY)

    assert planned("dev") == 0
    assert capsys.readouterr().out == "dev has no models in git\n"


@pytest.mark.parametrize(
    ("words", "text", "code", "sentence"),
    [
        (("dev",), MANIFEST, 5, "registry at http://127.0.0.1:9 cannot be reached"),
        (("dev",), MANIFEST.replace("ridge", "rigde"), 2, "spec.train.recipe.estimator: found 'rigde'"),
        (("nothere",), MANIFEST, "models: there is no environment 'nothere'", ""),
        (("dev", "--since", "0000"), MANIFEST, "models: git ls-tree: fatal: Not a valid object name 0000", ""),
    ],
    ids=["registry away", "wrong manifest", "no environment", "no commit"],
)
def test_a_plan_that_cannot_be_made_fails_and_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    text: str,
    code: int | str,
    sentence: str,
) -> None:
    repository(tmp_path, monkeypatch, fares=text)
    monkeypatch.setenv("MODELYARD_REGISTRY_URL", NOBODY)

    assert planned(*words) == code
    assert sentence in capsys.readouterr().out


def written(checkout: Checkout, **manifests: str) -> None:
    folder = checkout.folder / MODELS
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in manifests.items():
        (folder / f"{name}.yaml").write_text(text)


def repository(folder: Path, monkeypatch: pytest.MonkeyPatch, **manifests: str) -> None:
    """Make a repository of manifests for dev, and have the tool look there."""
    (folder / "deploy/argocd/envs/dev").mkdir(parents=True)
    made = Checkout(folder, folder)
    made.git("init", "--quiet", "--initial-branch=main")
    (folder / ".gitignore").write_text("build/\nregistry.db*\n")
    if manifests:
        written(made, **manifests)
    made.commit()
    monkeypatch.setattr(models, "ROOT", folder)


def planned(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        models.main(list(words))
    return left.value.code
