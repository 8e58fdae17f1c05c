"""Writes the Python stubs of the protocol definitions.

    python -m tools.stubs            # write
    python -m tools.stubs --check    # exit 1, naming the files, when one is not what it would write

Only messages: the server's handlers are a table of a few lines, which needs no generated code.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

__all__ = ["main", "written"]

ROOT = Path(__file__).resolve().parents[1]
INFERENCE = ROOT / "services/inference"
TARGETS = {
    INFERENCE / "proto/open_inference.proto": INFERENCE / "src/modelyard_inference/api/grpc",
    INFERENCE / "proto/onnx_graph.proto": INFERENCE / "src/modelyard_inference/adapters",
}
"""Definition to the folder of its stub."""


def written() -> dict[Path, str]:
    """Return what each stub should hold."""
    return {path: text for source, target in TARGETS.items() for path, text in _written(source, target).items()}


def _written(source: Path, target: Path) -> dict[Path, str]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "protoc",
            f"--proto_path={source.parent}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            source.name,
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit(f"protoc does not take {source}")
        return {target / path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    check = "--check" in (sys.argv[1:] if argv is None else argv)
    stale = {path: text for path, text in written().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if check:
            print(f"{path.relative_to(ROOT)} is not what its source says; run `python -m tools.stubs`", file=sys.stderr)
        else:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
