"""The folder that `make secrets` writes: one set that fits together, the owner's alone, and never written twice."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from modelyard_common.auth.tokens import hash_token, parse_tokens

from tests.compose.definition import ROOT, definition, env_file, services
from tools.charts.secret import PRINCIPALS
from tools.compose import secrets as making
from tools.compose.secrets import DATABASES, PEOPLE, SERVICES, ensure_secrets


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_tokens_are_those_that_services_accept(secrets: Path) -> None:
    accepted = parse_tokens((secrets / "tokens").read_text())

    for name in (*SERVICES, *PEOPLE):
        principal = accepted.pop(hash_token((secrets / name).read_text()))
        assert (principal.name, principal.role) == (name, PRINCIPALS[name])
    assert accepted == {}


def test_only_the_owner_can_enter_and_containers_can_read_what_is_mounted_into_them(secrets: Path) -> None:
    mounted = {Path(one["file"]).name for one in definition()["secrets"].values()}

    assert mode(secrets) == 0o700
    assert {path.name: mode(path) for path in secrets.iterdir()} == {
        path.name: 0o444 if path.name in mounted else 0o600 for path in secrets.iterdir()
    }


def test_the_folder_holds_what_the_compose_file_reads_and_the_tokens_of_people(secrets: Path) -> None:
    read = {Path(name).name for service in services().values() for name in service.get("env_file", [])}
    read |= {Path(one["file"]).name for one in definition()["secrets"].values()}

    assert set(contents(secrets)) == read | set(PEOPLE)


def test_every_database_has_a_password_of_its_own_and_a_role_made_with_it(secrets: Path) -> None:
    passwords = env_file(secrets / "postgres.env")
    script = (ROOT / "deploy/compose/databases.sh").read_text()

    assert set(passwords) == {"POSTGRES_PASSWORD", *(f"{name.upper()}_PASSWORD" for name in DATABASES)}
    assert len(set(passwords.values())) == len(passwords)
    for name in DATABASES:
        assert f"\\getenv {name} {name.upper()}_PASSWORD" in script
        assert f"CREATE ROLE {name} LOGIN PASSWORD :'{name}';" in script
        assert f"CREATE DATABASE {name} OWNER {name};" in script


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = [sys.executable, "-m", "tools.compose.secrets", "--folder", str(folder)]

    first = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    before = contents(folder)
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)

    assert "made" in first.stdout
    assert "nothing changed" in second.stdout
    assert contents(folder) == before
    assert not [text for name, text in before.items() if name not in ("tokens",) and text in first.stdout]


def test_no_secret_is_made_twice(tmp_path: Path, secrets: Path) -> None:
    ensure_secrets(tmp_path / "other")

    first, second = contents(secrets), contents(tmp_path / "other")
    assert not [name for name in first if first[name] == second[name]]


def test_a_set_that_cannot_be_finished_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "SERVICES", ("no-such-service",))

    with pytest.raises(KeyError):
        ensure_secrets(tmp_path / "secrets")

    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "tools.compose.secrets", "--folder", str(tmp_path / "file" / "secrets")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert f"secrets: {tmp_path}/file/secrets cannot be made" in done.stderr
