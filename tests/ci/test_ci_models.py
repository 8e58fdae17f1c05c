"""Models as code: a merge request that changes a manifest is told what its merge would do, by the live registry."""

from __future__ import annotations

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

from tests.ci.checkout import MERGE_REQUEST, Checkout

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


@pytest.mark.skipif(not shutil.which("rsync"), reason="gitlab-ci-local copies the checkout with rsync")
def test_a_merge_request_is_told_what_its_merge_would_do(checkout: Checkout, registry: RegistryClient) -> None:
    registry.apply(parse_manifest(yaml.safe_load(MANIFEST)))
    checkout.change("docs/x.md")
    models = checkout.folder / MODELS
    models.mkdir(parents=True)
    (models / "fares.yaml").write_text(MANIFEST + "  gate: [{metric: r2, min: 0.5}]\n")
    (models / "new.yaml").write_text(MANIFEST.replace("fares", "delays"))
    checkout.commit()
    where = {"MODELYARD_REGISTRY_URL": registry.base_url}

    done = checkout.ci("models-plan: [dev]", "--force-shell-executor", "--no-color", variables=MERGE_REQUEST | where)

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "model/fares would change, generation 2" in said
    assert '+ spec.gate[0]: {"metric": "r2", "min": 0.5}  (gate)' in said
    assert "later  gate: the next version is judged by these gates" in said
    assert "model/delays would be made, generation 1" in said
    assert [(one.name, one.generation) for one in registry.models()] == [("fares", 1)]
