"""Find the governed file behind an MLflow artifact, so that stock clients get verified bytes too."""

from __future__ import annotations

from modelyard_registry.usecases.ports import Reader
from modelyard_registry.usecases.records import Version

__all__ = ["find_governed_file"]


def find_governed_file(reader: Reader, run_id: str, artifact: str) -> tuple[Version, str] | None:
    """Return the version and the path in its bundle that an artifact of a run is; None when nobody governs it."""
    for version in reader.versions_of_run(run_id):
        folder = version.artifact_path.strip("/")
        if artifact.startswith(f"{folder}/"):
            return version, artifact.removeprefix(f"{folder}/")
    return None
