"""The node's programs, built from version-pinned Go modules and kept in a cache outside the checkout.

There is no registry of binaries to rely on; the Go module proxy with its checksum database is one. The cache is keyed
by everything that decides what comes out: both modules and their sums, our two main packages, the version of Go.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.errors import CannotRun, ClusterError

__all__ = ["Binaries", "ensure"]

SOURCE = Path(__file__).resolve().parents[2] / "tests" / "cluster" / "binaries"
INPUTS = ("go.mod", "go.sum", "node/main.go", "coredns/main.go", "metrics-server/go.mod", "metrics-server/go.sum")
# Two modules: metrics-server is at another level of Kubernetes than the node.
PACKAGES = {
    SOURCE: ("./node", "./coredns"),
    SOURCE / "metrics-server": ("sigs.k8s.io/metrics-server/cmd/metrics-server",),
}
BUILD_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Binaries:
    """The programs: `node` is Kubernetes' five in one, its first argument says which."""

    node: Path
    coredns: Path
    metrics_server: Path


def ensure() -> Binaries:
    """Return the programs, building them first when the cache lacks them (minutes, once a machine).

    Raises:
        CannotRun: there is no Go here, and nothing in the cache.
        ClusterError: the build failed.
    """
    go = shutil.which("go")
    if go is None:
        raise CannotRun("there is no go command to build Kubernetes with")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-cluster"
    target = cache / _key(go)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions must not both spend minutes on the same build
        if not target.is_dir():
            _build(go, target)
    return Binaries(target / "node", target / "coredns", target / "metrics-server")


def _key(go: str) -> str:
    digest = hashlib.sha256(_go(go, "version").encode())
    for name in INPUTS:
        digest.update((SOURCE / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, target: Path) -> None:
    version = _go(go, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as scratch:
        programs = Path(scratch) / "programs"
        programs.mkdir()
        for module, packages in PACKAGES.items():
            _build_module(go, module, packages, into=programs, version=version)
        programs.rename(target)  # whole or not at all


def _build_module(go: str, module: Path, packages: Sequence[str], *, into: Path, version: str) -> None:
    # Two at a time and politely: the linker of Kubernetes takes gigabytes, and a build is never urgent.
    polite = ["nice", "-n", "10", go, "build", "-p", "2", "-trimpath", "-ldflags", _ldflags(version)]
    done = subprocess.run(
        [*polite, "-o", f"{into}/", *packages],
        cwd=module,
        env=_env(),
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"the build of {', '.join(packages)} failed:\n{done.stderr[-4000:]}")


def _ldflags(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".")
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    # Without them the server calls itself v0.0.0-master, and a chart's kubeVersion refuses it.
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return "-s -w " + " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in facts.items())


def _go(go: str, *arguments: str) -> str:
    done = subprocess.run(
        [go, *arguments], cwd=SOURCE, env=_env(), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise ClusterError(f"go {' '.join(arguments)} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout.strip()


def _env() -> dict[str, str]:
    # local: never fetch another toolchain. Without cgo the programs are static, as an image from scratch needs.
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
