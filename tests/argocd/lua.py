"""Runs a health check as Argo CD does: Lua 5.1, only the basic and table functions, the object as the global `obj`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lupa import lua51

from tests.argocd.argo import ROOT

HEALTH = ROOT / "deploy/argocd/install/health"
STATUSES = ("Unknown", "Progressing", "Suspended", "Healthy", "Degraded", "Missing")
# What Argo CD leaves out: a script that needs one of these works here and fails there.
_ABSENT = ("string", "math", "io", "coroutine", "debug", "os", "python")


def health(script: Path, document: Mapping[str, Any]) -> tuple[str, str]:
    """Return status and message of an object."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    for name in _ABSENT:
        lua.globals()[name] = None
    # Methods of strings are the string library by another way.
    lua.execute('local m = ...; m("").__index = nil', lua.globals().getmetatable)
    lua.globals().obj = _table(lua, document)
    found = lua.execute(script.read_text())
    assert lua51.lua_type(found) == "table", f"not a table: {found!r}"
    assert set(found) <= {"status", "message"}
    assert found["status"] in STATUSES, found["status"]
    assert isinstance(found["message"], str)
    return found["status"], found["message"]


def _table(lua: lua51.LuaRuntime, value: Any) -> Any:
    if isinstance(value, Mapping):
        # A null is not there.
        return lua.table_from({key: _table(lua, member) for key, member in value.items() if member is not None})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return lua.table_from([_table(lua, member) for member in value])
    return value
