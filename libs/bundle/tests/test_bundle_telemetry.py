"""What runs models tells nobody about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_onnx_runtime_keeps_no_identifier_of_the_machine(tmp_path: Path) -> None:
    # Nothing else of the environment: in CI the runtime keeps quiet by itself.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [sys.executable, "-c", "import modelyard_bundle.runtimes.onnx as found; print(found.OnnxRuntime.name)"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "onnx\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
