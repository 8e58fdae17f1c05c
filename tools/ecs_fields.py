"""Writes the field names and types of the Elastic Common Schema that log lines are tested against.

    python -m tools.ecs_fields

They come from Elastic's own package on npm, at one version and with one hash; nothing is written by hand. Needs npm and
node, which nothing else here does, so what it writes is kept: ``tests/telemetry/ecs_fields.json``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

__all__ = ["TARGET", "VERSION"]

VERSION = "9.4.0"
_PACKAGE = "@elastic/ecs"
_INTEGRITY = "sha512-znk6Jr38KNRsyUKstormNX4QKtqnwQY1EWqrMCWIg/nY6dC1imSxzrdR6xuljxnY6JHj+/9NdTiRohVbeUEA/Q=="
TARGET = Path(__file__).parents[1] / "tests/telemetry/ecs_fields.json"
_TELL = """
const { EcsFlat } = require(process.argv[1]);
const fields = Object.entries(EcsFlat).map(([name, field]) =>
  [name, field.type + (field.normalize.includes("array") ? "[]" : "")]);
console.log(JSON.stringify(Object.fromEntries(fields)));
"""


def main() -> None:
    """Fetch, check, write."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"{_PACKAGE}@{VERSION}"], cwd=folder, check=True, timeout=120)
        [archive] = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != _INTEGRITY:
            raise SystemExit(f"{_PACKAGE} {VERSION} is not what it was: {found}")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        module = Path(folder) / "package/build/commonjs/ecs_flat.js"
        told = subprocess.run(
            ["node", "-e", _TELL, str(module)], check=True, timeout=60, capture_output=True, text=True
        ).stdout
    document = {"source": f"npm {_PACKAGE} {VERSION}", "integrity": _INTEGRITY, "fields": json.loads(told)}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"{TARGET.name}: {len(document['fields'])} fields of {_PACKAGE} {VERSION}")


if __name__ == "__main__":
    main()
