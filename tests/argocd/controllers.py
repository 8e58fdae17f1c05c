"""Argo CD's own programs, as processes of this machine: what syncs a git repository into a cluster, without its UI.

They are built from version-pinned Go modules into a cache outside the checkout, once for each pin. All listen on
loopback only; the cluster is whatever a kubeconfig says.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from modelyard_common.testing import free_port

from tests.argocd.definitions import CannotHave, definitions
from tests.chart.rendering import Document
from tools.cluster.access import Cluster

SOURCE = Path(__file__).parent / "binaries"
NAMESPACE = "argocd"
VERSION = "v3.2.11"
# What `install` and the root make on a cluster beside what goes with namespaces.
DEFINITIONS = ("applications.argoproj.io", "applicationsets.argoproj.io", "appprojects.argoproj.io")
BUILD_TIMEOUT_S = 3600
START_TIMEOUT_S = 90.0


class BuildFailed(Exception):
    """Argo CD could not be built; the message is what the compiler said."""


def ensure() -> Path:
    """Return the program, building it first when the cache lacks it (many minutes, once a machine).

    Raises:
        CannotHave: there is no Go here.
        BuildFailed: the build failed.
    """
    go = shutil.which("go")
    if go is None:
        raise CannotHave("there is no go command to build Argo CD with")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-argocd"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"argocd-{_key(go)}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions must not both spend minutes on the same build
        if not target.is_file():
            _build(go, target)
    return target


def _key(go: str) -> str:
    digest = hashlib.sha256(subprocess.run([go, "version"], capture_output=True, check=True, timeout=60).stdout)
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCE / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, target: Path) -> None:
    scratch = target.with_suffix(".new")
    command = ["nice", "-n", "10", go, "build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o", str(scratch), "."]
    flags = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    done = subprocess.run(
        command,
        cwd=SOURCE,
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"the build of Argo CD failed:\n{done.stderr[-4000:]}")
    scratch.replace(target)


@dataclass
class Repository:
    """A git repository on loopback, and a clone to commit to."""

    clone: Path
    url: str

    def commit(self, subject: str) -> str:
        """Commit everything that was changed in the clone, publish it, and return the commit."""
        self._git("add", "--all")
        self._git("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", subject)
        self._git("push", "--quiet", "origin", "HEAD:main")
        return self._git("rev-parse", "HEAD")

    def _git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.clone, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()


@dataclass
class Processes:
    """Programs that end together."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[object], environment: dict[str, str], port: int) -> None:
        """Start a program and wait until it listens."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(word) for word in command],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            ended = self.running[name].poll() is not None
            assert not ended and time.monotonic() < deadline, f"{name} did not start:\n{self.tail(name)}"
            time.sleep(0.1)

    def tail(self, name: str) -> str:
        """Return the end of a program's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End them, the last first."""
        for process in reversed(self.running.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(content: Path, folder: Path) -> Iterator[Repository]:
    """Serve a folder's content as a git repository with the branch main."""
    bare, clone, port = folder / "git" / "modelyard.git", folder / "clone", free_port()
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare)], check=True, timeout=60)
    shutil.copytree(content, clone)
    repository = Repository(clone, f"git://127.0.0.1:{port}/modelyard.git")
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=clone, check=True, timeout=60)
    subprocess.run(["git", "remote", "add", "origin", str(bare)], cwd=clone, check=True, timeout=60)
    processes = Processes(folder)
    daemon = ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}"]
    try:
        processes.start("git", [*daemon, f"--base-path={bare.parent}"], dict(os.environ), port)
        yield repository
    finally:
        processes.stop()


@contextmanager
def controllers(cluster: Cluster, folder: Path) -> Iterator[Processes]:
    """Run Argo CD on a cluster: its definitions and settings there, its programs here. At the end both are gone."""
    program = ensure()
    environment, processes = _environment(cluster, folder), Processes(folder)
    try:
        _install(cluster)
        for name, port, words in _commands(cluster):
            processes.start(name, [program, *words], environment, port)
        yield processes
    finally:
        processes.stop()
        _uninstall(cluster)


def _uninstall(cluster: Cluster) -> None:
    mine = ("argocd", "modelyard-dev", "modelyard-production")
    cluster.kubectl("delete", "namespace", *mine, "--ignore-not-found", timeout_s=120)
    cluster.kubectl("delete", "crd", *DEFINITIONS, "managedmodels.modelyard.dev", "--ignore-not-found")


def _commands(cluster: Cluster) -> Iterator[tuple[str, int, list[str]]]:
    """Yield name, port and words of each program, in the order in which they need each other."""
    here, (redis, repo) = "127.0.0.1", (free_port(), free_port())
    yield "redis", redis, ["redis", f"{here}:{redis}"]
    listen = [f"--address={here}", f"--port={repo}", f"--metrics-address={here}", f"--metrics-port={free_port()}"]
    yield "repo-server", repo, ["argocd-repo-server", *listen, "--disable-tls", f"--redis={here}:{redis}"]
    common = [f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", "--repo-server-plaintext"]
    probes, metrics = free_port(), free_port()
    listen = [f"--probe-addr={here}:{probes}", f"--metrics-addr={here}:{free_port()}"]
    listen += [f"--webhook-addr={here}:{free_port()}"]
    sets = ["argocd-applicationset-controller", *common, f"--argocd-repo-server={here}:{repo}", *listen]
    yield "applicationset-controller", probes, sets
    often = [f"--metrics-port={metrics}", "--app-resync=30", "--self-heal-timeout-seconds=1"]
    peers = [f"--repo-server={here}:{repo}", f"--redis={here}:{redis}"]
    yield "application-controller", metrics, ["argocd-application-controller", *common, *peers, *often]


def _environment(cluster: Cluster, folder: Path) -> dict[str, str]:
    tools, data = folder / "bin", folder / "data"
    tools.mkdir()
    # What it calls is `helm`; this version of Argo CD was made for Helm 3.
    (tools / "helm").symlink_to(cluster.tools.helm3)
    found = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ARGOCD_FAKE_IN_CLUSTER": "true"}
    found |= {"ARGOCD_GPG_ENABLED": "false", "ARGOCD_EXEC_TIMEOUT": "180s", "KUBECONFIG": str(cluster.kubeconfig)}
    for name in ("TLS", "SSH", "GPG"):
        (data / name).mkdir(parents=True)
        found[f"ARGOCD_{name}_DATA_PATH"] = str(data / name)
    (folder / "tmp").mkdir()
    return found | {"TMPDIR": str(folder / "tmp"), "HOME": str(folder)}


def _await_established(cluster: Cluster, name: str) -> None:
    cluster.eventually(lambda: _established(cluster, name), timeout_s=60, explain=lambda: f"crd/{name}")


def _established(cluster: Cluster, name: str) -> bool:
    # `kubectl wait` gives up on a definition so new that its conditions are null.
    conditions = cluster.get(f"crd/{name}").get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _install(cluster: Cluster) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.apply(*definitions(VERSION).values())
    for name in DEFINITIONS:
        _await_established(cluster, name)
    settings = ("argocd-cm", "argocd-rbac-cm", "argocd-ssh-known-hosts-cm", "argocd-tls-certs-cm", "argocd-gpg-keys-cm")
    cluster.apply(*(_object("ConfigMap", name) for name in settings), namespace=NAMESPACE)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    cluster.apply(_object("Secret", "argocd-secret") | {"data": {"server.secretkey": key}}, namespace=NAMESPACE)


def _object(kind: str, name: str) -> Document:
    labels = {"app.kubernetes.io/part-of": "argocd"}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}}


def replace(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, where it must be."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new))


def documents(text: str) -> list[Document]:
    """Return the documents of a YAML text."""
    return [one for one in yaml.safe_load_all(text) if one is not None]
