"""Images without an engine: a static program and nothing else, as an archive that containerd imports."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_scratch_image"]


def write_scratch_image(path: Path, *, tag: str, program: Path, arguments: Sequence[str] = ()) -> Path:
    """Write an archive, as `docker save` would, of an image that holds one static program.

    Args:
        path: where to.
        tag: the image's full name.
        program: becomes `/<its name>`, the image's entry point.
        arguments: follow it in the entry point.
    """
    layer = _layer(program)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}", *arguments], "User": "10001:10001"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, name, content, mode=0o644)
    return path


def _layer(program: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        _add(layer, program.name, program.read_bytes(), mode=0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
