"""Which requests of MLflow's API may pass the proxy: reads, by name. Everything else is refused.

New MLflow releases bring new routes, often without an authorisation check of their own; a list of what is allowed,
instead of what is forbidden, makes each of them a refusal until somebody has looked at it.
"""

from __future__ import annotations

import re

__all__ = ["allowed", "refusal", "run_artifact"]

_SEGMENT = r"[A-Za-z0-9_.:-]{1,250}"

_READS = {
    "GET": (
        r"/api/2\.0/mlflow/experiments/(get|get-by-name|search)",
        r"/api/2\.0/mlflow/runs/get",
        r"/api/2\.0/mlflow/metrics/get-history",
        r"/api/2\.0/mlflow/artifacts/list",
        r"/api/2\.0/mlflow/registered-models/(get|search|alias|get-latest-versions)",
        r"/api/2\.0/mlflow/model-versions/(get|search|get-download-uri)",
        rf"/api/2\.0/mlflow/logged-models/{_SEGMENT}(/artifacts/directories)?",
        r"/api/2\.0/mlflow-artifacts/artifacts(/.+)?",
        r"/api/3\.0/mlflow/(server-info|server-features)",
    ),
    "POST": (
        r"/api/2\.0/mlflow/experiments/search",
        r"/api/2\.0/mlflow/runs/search",
        r"/api/2\.0/mlflow/logged-models/search",
        r"/api/2\.0/mlflow/registered-models/get-latest-versions",
    ),
}
_ALLOWED = {method: re.compile("|".join(f"(?:{path})" for path in paths)) for method, paths in _READS.items()}

_DOWNLOAD = re.compile(rf"/api/2\.0/mlflow-artifacts/artifacts/[^/]+/(?P<run>{_SEGMENT})/artifacts/(?P<artifact>.+)")

_HINTS = (
    (
        ("/registered-models", "/model-versions"),
        "models, versions and aliases are governed: apply a manifest (modelyard apply), offer a bundle (modelyard "
        "register), and let the gates or a promotion (modelyard promote) move the alias",
    ),
    (
        ("/runs", "/experiments", "/logged-models", "/mlflow-artifacts", "/artifacts", "upload-artifact"),
        "this address only reads: training jobs write their runs and artifacts to MLflow themselves",
    ),
)


def allowed(method: str, path: str) -> bool:
    """Return whether a request is a read that passes; path is decoded."""
    pattern = _ALLOWED.get(method)
    if pattern is None or pattern.fullmatch(path) is None:
        return False
    # A path that climbs, or hides a separator, means something else to whoever resolves it.
    return not any(part in ("..", ".") for part in path.split("/")) and not re.search(r"[\\%?#\x00-\x1f]", path)


def run_artifact(path: str) -> tuple[str, str] | None:
    """Return the run and the artifact that a download is about, if it is one: ``(run_id, path in the run)``."""
    found = _DOWNLOAD.fullmatch(path)
    return (found["run"], found["artifact"]) if found else None


def refusal(method: str, path: str) -> str:
    """Return in words why a request does not pass and what to do instead."""
    hint = next((words for marks, words in _HINTS if any(mark in path for mark in marks)), None)
    why = hint or "this route is not governed by Modelyard yet, and what is not governed is refused"
    return f"{method} {path[:200]} is refused: {why}"
