"""Ports of tests: not those that the kernel hands to connections."""

from __future__ import annotations

import socket

import pytest
from modelyard_common.testing import free_port, free_port_base, ports


def test_the_kernel_gives_a_free_port_to_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        first_outgoing = min(_outgoing(server) for _ in range(50))

    assert all(free_port() < first_outgoing for _ in range(50))


def test_a_free_port_can_be_listened_on_with_those_that_follow() -> None:
    base = free_port_base(5)
    servers = [socket.create_server(("127.0.0.1", base + offset)) for offset in range(5)]

    assert base not in {free_port_base(5) for _ in range(50)}

    for server in servers:
        server.close()


def test_without_a_free_port_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    base = free_port()
    monkeypatch.setattr(ports, "_FIRST", base)
    monkeypatch.setattr(ports, "_last", lambda: base)
    assert free_port() == base

    with socket.create_server(("127.0.0.1", base)), pytest.raises(RuntimeError, match=f"no 1 free ports .* {base}"):
        free_port()


def _outgoing(server: socket.socket) -> int:
    with socket.create_connection(server.getsockname()) as near:
        port: int = near.getsockname()[1]
        return port
