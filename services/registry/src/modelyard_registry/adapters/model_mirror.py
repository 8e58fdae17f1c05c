"""The mirror of our models in MLflow's model registry, so that stock tools see versions and aliases."""

from __future__ import annotations

from typing import Any

from modelyard_common.errors import NotFound

from modelyard_registry.adapters.mlflow import Artifacts, MlflowRefused, MlflowRest
from modelyard_registry.domain.aliases import AliasChange
from modelyard_registry.usecases.ports import MirroredModel
from modelyard_registry.usecases.records import Version

__all__ = ["MlflowMirror"]

DIGEST_TAG = "modelyard.digest"
STATE_TAG = "modelyard.state"
NUMBER_TAG = "modelyard.number"


class MlflowMirror:
    """Implements the use cases' ``ModelMirror``. Every method may be repeated."""

    def __init__(self, rest: MlflowRest) -> None:
        self._rest = rest
        self._artifacts = Artifacts(rest)

    def ensure_model(self, name: str, description: str) -> MirroredModel:
        """Create the registered model unless it exists, and return it."""
        try:
            shown = self._rest.get("registered-models/get", {"name": name})
        except NotFound:
            tags = [{"key": "modelyard.governed", "value": "true"}]
            body = {"name": name, "description": description, "tags": tags}
            try:
                shown = self._rest.call("POST", "registered-models/create", body)
            except MlflowRefused as exc:
                if exc.code != "RESOURCE_ALREADY_EXISTS":
                    raise
                shown = self._rest.get("registered-models/get", {"name": name})
        aliases = shown.get("registered_model", {}).get("aliases", [])
        return MirroredModel({alias["alias"]: str(alias["version"]) for alias in aliases})

    def ensure_version(self, version: Version) -> str:
        """Create the version unless one with its digest exists, and return its number there."""
        known = self._find(version)
        if known is not None:
            return known
        root = self._artifacts.root(version.mlflow_run_id, version.artifact_path)
        body = {
            "name": version.model,
            "source": f"mlflow-artifacts:/{root}",
            "run_id": version.mlflow_run_id,
            "description": f"Governed by Modelyard: {version.name}, training run {version.run}.",
            "tags": [
                {"key": DIGEST_TAG, "value": version.digest},
                {"key": NUMBER_TAG, "value": str(version.number)},
            ],
        }
        created = self._rest.call("POST", "model-versions/create", body)
        return str(created["model_version"]["version"])

    def set_alias(self, model: str, change: AliasChange) -> None:
        """Set an alias or take it away."""
        body: dict[str, Any] = {"name": model, "alias": change.alias}
        if change.version is None:
            self._rest.call("DELETE", "registered-models/alias", body)
        else:
            self._rest.call("POST", "registered-models/alias", {**body, "version": change.version})

    def set_state(self, version: Version) -> None:
        """Tag the version with its state."""
        body = {"name": version.model, "version": version.mlflow_version, "key": STATE_TAG, "value": version.state}
        self._rest.call("POST", "model-versions/set-tag", body)

    def delete_model(self, name: str) -> None:
        """Delete the registered model if it exists."""
        try:
            self._rest.call("DELETE", "registered-models/delete", {"name": name})
        except NotFound:
            return

    def _find(self, version: Version) -> str | None:
        """Return the number of the version that carries this digest: an earlier attempt may have made it."""
        # Names and digests are of forms without quotes.
        condition = f"name = '{version.model}' AND tags.`{DIGEST_TAG}` = '{version.digest}'"
        found = self._rest.get("model-versions/search", {"filter": condition, "max_results": "10"})
        numbers = [str(item["version"]) for item in found.get("model_versions", [])]
        return min(numbers, key=int, default=None)
