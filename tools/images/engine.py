"""A container engine: the one that runs already, else a dockerd of our own for as long as it is needed.

An own dockerd keeps its data in a cache outside the checkout and changes nothing of the machine's network by itself: it
has no bridge and writes no firewall rule. Containers use the host's network, none, or a network that is made for them
and removed again, as compose does: a bridge that leads nowhere, with names in it, and ports that a process passes on.
"""

import fcntl
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Engine", "EngineError", "docker", "podman"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
KEEP_STAGES = "12h"
TURN_TIMEOUT_S = 1800.0
BUILD_TIMEOUT_S = 1800.0
CALL_TIMEOUT_S = 300.0


class EngineError(Exception):
    """The engine is not to be had, or refused a command; the message says which and why."""


@dataclass(frozen=True)
class Engine:
    """A Docker-compatible command line, and what it needs to reach its engine.

    Args:
        command: the program and the options before every subcommand.
        env: added to the environment of every call.
        build_options: what `build` needs here to be reproducible and to keep health checks.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    build_options: tuple[str, ...] = ()

    def run(self, *arguments: str, timeout_s: float = CALL_TIMEOUT_S, stdin: Path | None = None) -> str:
        """Run a subcommand and return what it printed.

        Raises:
            EngineError: it failed or took too long.
        """
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(
                [*self.command, *arguments],
                env={**os.environ, **self.env},
                stdin=source,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        if done.returncode:
            called = " ".join([*self.command, *arguments[:6]])
            raise EngineError(f"{called} … failed ({done.returncode}):\n{(done.stdout + done.stderr)[-6000:]}")
        return done.stdout.strip()

    def build(self, *, context: Path, tag: str, build_args: Mapping[str, str], extra: Sequence[str] = ()) -> None:
        """Build an image from a folder's Dockerfile; its RUN steps use the host's network."""
        arguments = [argument for item in build_args.items() for argument in ("--build-arg", "=".join(item))]
        options = ["--network", "host", *self.build_options, *extra]
        self.run("build", *options, *arguments, "--tag", tag, str(context), timeout_s=BUILD_TIMEOUT_S)

    def inspect(self, reference: str, kind: str = "image") -> dict[str, Any]:
        """Return what the engine knows of an image or a container."""
        found: list[dict[str, Any]] = json.loads(self.run(kind, "inspect", reference))
        return found[0]

    def has(self, tag: str) -> bool:
        """Return whether an image is here."""
        return bool(self.run("images", "--quiet", tag))


@contextmanager
def docker(data_root: Path) -> Iterator[Engine]:
    """Yield the Docker that this user reaches, else one started for the time of the block.

    Args:
        data_root: where an own dockerd keeps images between two calls.
    """
    if not (client := shutil.which("docker")):
        raise EngineError(
            "there is no docker command; as root on Debian, tools/install-cluster-packages.sh installs it"
        )
    reachable = subprocess.run([client, "version"], capture_output=True, timeout=START_TIMEOUT_S, check=False)
    if reachable.returncode == 0:
        yield Engine((client,), {})
        return
    if os.geteuid() != 0 or not (daemon := shutil.which("dockerd")):
        raise EngineError("no Docker answers, and starting one takes root and dockerd")
    with (
        _alone(data_root),
        tempfile.TemporaryDirectory(prefix="modelyard-dockerd-") as scratch,
        _daemon(daemon, Path(scratch), data_root),
    ):
        yield Engine((client,), {"DOCKER_HOST": f"unix://{scratch}/docker.sock", "DOCKER_BUILDKIT": "0"})


@contextmanager
def podman() -> Iterator[Engine]:
    """Yield podman with a storage of its own, independent of systemd and of the machine's settings.

    The storage is for this block alone: podman notes in it where its run-time folder was and accepts no other.
    """
    if os.geteuid() != 0 or not (client := shutil.which("podman")):
        raise EngineError("podman is not installed, or this is not root; tools/install-cluster-packages.sh installs it")
    # Podman takes no run-time folder of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as scratch:
        settings = Path(scratch) / "containers.conf"
        # The limits of this very process: without CAP_SYS_RESOURCE none may be raised, and podman's own would.
        limits = f'["nofile={_limit(resource.RLIMIT_NOFILE)}", "nproc={_limit(resource.RLIMIT_NPROC)}"]'
        engine = '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        settings.write_text(f"[containers]\ndefault_ulimits = {limits}\n{engine}")
        options = ("--root", f"{scratch}/storage", "--runroot", f"{scratch}/run", "--tmpdir", f"{scratch}/tmp")  # noqa: S108
        try:
            # Docker's image format: OCI's has no health check.
            yield Engine((client, *options), {"CONTAINERS_CONF": str(settings)}, ("--format", "docker", "--pull=never"))
        finally:
            for mount in (f"{scratch}/storage/overlay", f"{scratch}/run"):
                subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


@contextmanager
def _alone(data_root: Path) -> Iterator[None]:
    """Wait until no other session uses the data: two daemons over one folder would ruin it."""
    data_root.mkdir(parents=True, exist_ok=True)
    with data_root.with_suffix(".lock").open("w") as lock:
        deadline = time.monotonic() + TURN_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineError(f"another session has held {data_root} for {TURN_TIMEOUT_S:.0f} s") from None
                time.sleep(0.5)
        yield


@contextmanager
def _daemon(daemon: str, scratch: Path, data_root: Path) -> Iterator[None]:
    log = scratch / "dockerd.log"
    places = ["--data-root", data_root, "--exec-root", scratch / "exec", "--pidfile", scratch / "docker.pid"]
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    # A session that is killed takes its daemon with it.
    command = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        daemon,
        "-H",
        f"unix://{scratch}/docker.sock",
        *map(str, places),
        *network,
    ]
    command += ["--exec-opt", "native.cgroupdriver=cgroupfs", *_ulimits()]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        _await(process, scratch / "docker.sock", log)
        _sweep(scratch / "docker.sock")
        yield
        _sweep(scratch / "docker.sock")
        # Stages of builds of yesterday; those of today are the cache.
        prune = ["image", "prune", "--force", "--filter", f"until={KEEP_STAGES}"]
        subprocess.run(["docker", "-H", f"unix://{scratch}/docker.sock", *prune], capture_output=True, check=False)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # dockerd leaves these mounts behind: of its network namespace, and of its data onto itself.
        for mount in [*(scratch / "exec").glob("netns/*"), data_root]:
            subprocess.run(["umount", "--lazy", str(mount)], capture_output=True, check=False)


def _sweep(socket: Path) -> None:
    """Remove containers, volumes and networks: those of a killed session would come up again with the daemon."""
    engine = Engine(("docker", "-H", f"unix://{socket}"), {})
    for kind, options in (("container", ["--all"]), ("volume", [])):
        if found := engine.run(kind, "ls", "--quiet", *options):
            engine.run(kind, "rm", "--force", *found.split())
    engine.run("network", "prune", "--force")


def _ulimits() -> list[str]:
    return ["--default-ulimit", f"nofile={_limit(resource.RLIMIT_NOFILE)}"]


def _limit(kind: int) -> str:
    """Return a limit that may be set here: this process's hard one, but never without end, which has no notation."""
    hard = resource.getrlimit(kind)[1]
    value = min(hard, 32768) if hard != resource.RLIM_INFINITY else 32768
    return f"{value}:{value}"


def _await(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        answer = subprocess.run(
            ["docker", "-H", f"unix://{socket}", "version"], capture_output=True, timeout=START_TIMEOUT_S, check=False
        )
        if answer.returncode == 0:
            return
        time.sleep(0.1)
    raise EngineError(f"dockerd did not start:\n{log.read_text()[-4000:]}")
