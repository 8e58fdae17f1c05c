"""The base image: the published one where there is a registry, else a Debian of the same Python made here.

The home-made one bears a name of its own, so that no tag lies about what is inside. It trusts the certificates that
this machine trusts: behind a proxy that looks into TLS nothing could be installed in it otherwise.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.images.engine import Engine, EngineError

__all__ = ["cache_dir", "ensure_base"]

PUBLISHED = "python:3.11-slim"
SUITE = "bookworm"  # its python3 is 3.11, as in the published image
INCLUDE = "python3,python3-venv,ca-certificates"
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MAKE_TIMEOUT_S = 900
PULL_TIMEOUT_S = 60


def cache_dir() -> Path:
    """Where bases and an own engine's images live: outside the checkout, since they are large and slow to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-images"


def ensure_base(engine: Engine) -> str:
    """Return the name of a base image that the engine has.

    Raises:
        EngineError: it is not here, cannot be pulled, and cannot be made.
    """
    made = f"modelyard/python-base:{_key()}"
    for name in (PUBLISHED, made):
        if engine.has(name):
            return name
    try:
        engine.run("pull", "--quiet", PUBLISHED, timeout_s=PULL_TIMEOUT_S)
    except (EngineError, subprocess.TimeoutExpired) as exc:
        archive = _made_archive(why=str(exc))
        engine.run("import", "--change", 'CMD ["python3"]', str(archive), made)
        return made
    return PUBLISHED


def _key() -> str:
    certificates = CERTIFICATES.read_bytes() if CERTIFICATES.is_file() else b""
    parts = [SUITE, INCLUDE, *NOT_NEEDED, hashlib.sha256(certificates).hexdigest()]
    return f"{SUITE}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _made_archive(*, why: str) -> Path:
    archive = cache_dir() / f"base-{_key()}.tar"
    if archive.is_file():
        return archive
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise EngineError(
            f"{PUBLISHED} cannot be pulled, and making a base takes root and debootstrap "
            f"(tools/install-cluster-packages.sh installs it). The pull said: {why[-500:]}"
        )
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="debootstrap-") as scratch:
        root = Path(scratch) / "root"
        _debootstrap(root)
        partial = Path(scratch) / "base.tar"
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(partial), "."], check=True)
        partial.replace(archive)
    return archive


def _debootstrap(root: Path) -> None:
    mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
    command = ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(root), mirror]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S, check=False)
    if done.returncode:
        raise EngineError(f"debootstrap failed:\n{(done.stdout + done.stderr)[-3000:]}")
    for folder in NOT_NEEDED:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    if CERTIFICATES.is_file():
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
