"""Writes the secrets of docker-compose.yml, newly made: `make secrets`.

    python -m tools.compose.secrets --folder secrets

The folder is one set, since tokens and their hashes, or a password on both sides, only work together: it appears as a
whole or not at all, and one that is there is left as it is. Nobody but its owner can enter it. Inside, what the compose
command reads, and the tokens of people, are the owner's alone; what is mounted into containers can be read by all,
because a container's user is not the owner and file secrets keep the mode that they have here.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tools.charts.secret import new_tokens

__all__ = ["DATABASES", "PEOPLE", "SERVICES", "ensure_secrets"]

SERVICES = ("registry", "training", "inference", "drift")
PEOPLE = ("admin", "client")
DATABASES = ("registry", "training", "drift", "mlflow")
OWN, MOUNTED = 0o600, 0o444

_DATABASE_VARIABLES = {name: f"MODELYARD_{name.upper()}_DATABASE_URL" for name in DATABASES} | {
    "mlflow": "MLFLOW_BACKEND_STORE_URI"
}


def ensure_secrets(folder: Path) -> bool:
    """Make the folder with all secrets unless it is there; return whether it was made."""
    if folder.exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp's folder is 0700.
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, (text, mode) in _files().items():
            path = scratch / name
            path.touch(mode=OWN)
            path.write_text(text)
            path.chmod(mode)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _files() -> dict[str, tuple[str, int]]:
    """Return text and mode by file name."""
    tokens = new_tokens((*SERVICES, *PEOPLE))
    mounted = {name: (tokens[name], MOUNTED) for name in ("tokens", *SERVICES)}
    own = {name: tokens[name] for name in PEOPLE}
    variables = {
        **_databases(),
        **_object_store(),
        "grafana": {"GF_SECURITY_ADMIN_PASSWORD": secrets.token_urlsafe(24)},
    }
    own |= {
        f"{name}.env": "".join(f"{variable}={value}\n" for variable, value in values.items())
        for name, values in variables.items()
    }
    return mounted | {name: (text, OWN) for name, text in own.items()}


def _databases() -> dict[str, dict[str, str]]:
    # Hexadecimal: nothing to quote in a URL, in SQL or in an env file.
    passwords = {name: secrets.token_hex(24) for name in DATABASES}
    server = {"POSTGRES_PASSWORD": secrets.token_hex(24)}
    server |= {f"{name.upper()}_PASSWORD": password for name, password in passwords.items()}
    urls = {
        f"{name}-database": {_DATABASE_VARIABLES[name]: f"postgresql://{name}:{password}@postgres:5432/{name}"}
        for name, password in passwords.items()
    }
    return {"postgres": server, **urls}


def _object_store() -> dict[str, dict[str, str]]:
    key, secret = f"modelyard-{secrets.token_hex(4)}", secrets.token_hex(24)
    return {
        "object-store": {"ROOT_ACCESS_KEY_ID": key, "ROOT_SECRET_ACCESS_KEY": secret},
        "object-store-client": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
    }


def main() -> None:
    """Make them, and say what was done."""
    parser = argparse.ArgumentParser(description="Make the secrets of docker-compose.yml, once.")
    parser.add_argument("--folder", type=Path, default=Path("secrets"))
    folder: Path = parser.parse_args().folder
    try:
        made = ensure_secrets(folder)
    except OSError as error:
        sys.exit(f"secrets: {folder} cannot be made: {error}")
    print(f"{folder}: made" if made else f"{folder}: there already, nothing changed")


if __name__ == "__main__":
    main()
