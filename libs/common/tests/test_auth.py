"""Tokens and guards: kept hashed, default deny, rotated without a restart, and no half rotation locks anybody out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from modelyard_common.auth.authenticator import Authenticator
from modelyard_common.auth.guards import allow, principal_of
from modelyard_common.auth.principals import ANONYMOUS, ROLES, Principal
from modelyard_common.auth.tokens import TokenFile, hash_token, parse_tokens
from modelyard_common.errors import Denied, Invalid, Unauthenticated


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# people\nann admin {hash_token('t-ann')}  # on call\n\napp client {hash_token('t-app')}\n")
    return path


def test_a_token_is_known_by_its_hash(tokens: Path) -> None:
    file = TokenFile(tokens)

    assert file.principal("t-ann") == Principal("ann", "admin")
    assert file.principal("t-app") == Principal("app", "client")
    assert "t-ann" not in tokens.read_text()


def test_the_hash_in_the_file_is_not_a_token(tokens: Path) -> None:
    assert TokenFile(tokens).principal(hash_token("t-ann")) is None


@given(st.text(st.characters(codec="utf-8")).filter(lambda token: token != "t-ann"))
def test_no_other_text_has_the_same_hash(token: str) -> None:
    assert hash_token(token) not in parse_tokens(f"ann admin {hash_token('t-ann')}")


def test_hashing_is_plain_sha256_so_that_any_tool_can_do_it() -> None:
    assert hash_token("t") == hashlib.sha256(b"t").hexdigest()


@pytest.mark.parametrize(
    "line",
    ["ann", "ann admin", f"ann root {'0' * 64}", "ann admin short", f"ann admin {'g' * 64}", f"ann admin {'é' * 64}"],
)
def test_a_wrong_line_is_named_and_not_shown(line: str) -> None:
    with pytest.raises(Invalid, match="line 2") as caught:
        parse_tokens(f"# first\n{line}\n")

    assert line == "ann" or line not in caught.value.message


def test_an_upper_case_hash_is_the_same_hash() -> None:
    assert hash_token("t") in parse_tokens(f"ann admin {hash_token('t').upper()}")


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        TokenFile(tmp_path / "none")


def replace(path: Path, text: str) -> None:
    """Replace a file as Kubernetes does: another one under the same name."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_a_rotated_file_is_read_again(tokens: Path) -> None:
    file = TokenFile(tokens)
    replace(tokens, f"ann admin {hash_token('t-new')}\n")

    assert file.principal("t-ann") is None
    assert file.principal("t-new") == Principal("ann", "admin")


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(tokens: Path) -> None:
    file, before = TokenFile(tokens), tokens.stat()
    replace(tokens, tokens.read_text().replace(hash_token("t-ann"), hash_token("t-bob")))
    os.utime(tokens, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert file.principal("t-bob") == Principal("ann", "admin")


@pytest.mark.parametrize("broken", ["half a li", None], ids=["half written", "gone"])
def test_half_a_rotation_locks_nobody_out_and_ends(tokens: Path, broken: str | None) -> None:
    file, before = TokenFile(tokens), tokens.read_text()
    if broken is None:
        tokens.unlink()
    else:
        replace(tokens, broken)

    assert file.principal("t-ann") == Principal("ann", "admin")
    assert file.principal("other") is None

    replace(tokens, before.replace(hash_token("t-ann"), hash_token("t-new")))
    assert file.principal("t-ann") is None
    assert file.principal("t-new") == Principal("ann", "admin")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer   ",
        "t-ann",
        "Basic t-ann",
        "Bearer t-ann x",
        "Bearer wrong",
        "Token t-ann",
    ],
)
def test_whoever_shows_no_known_token_is_nobody(tokens: Path, header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        Authenticator(TokenFile(tokens)).authenticate(header)


@pytest.mark.parametrize("header", ["Bearer t-ann", "bearer t-ann", "BEARER  t-ann "])
def test_the_scheme_is_written_in_any_case(tokens: Path, header: str) -> None:
    assert Authenticator(TokenFile(tokens)).authenticate(header).name == "ann"


def test_without_tokens_everybody_is_anonymous() -> None:
    assert Authenticator(None).authenticate(None) == ANONYMOUS


def asking(principal: Principal | None) -> Request:
    scope = {} if principal is None else {"modelyard.principal": principal}
    return cast(Request, SimpleNamespace(scope=scope))


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_guard_lets_its_roles_pass_and_no_other(role: Any) -> None:
    asker = asking(Principal("x", role))

    assert allow(role)(asker) == principal_of(asker)
    with pytest.raises(Denied, match="x has the role"):
        allow(*[other for other in ("service", "admin", "client") if other != role])(asker)  # type: ignore[arg-type]
    with pytest.raises(Denied):
        allow()(asker)


def test_a_guard_lets_nobody_pass_whom_the_edge_has_not_seen() -> None:
    with pytest.raises(KeyError):
        allow("service", "admin", "client")(asking(None))
