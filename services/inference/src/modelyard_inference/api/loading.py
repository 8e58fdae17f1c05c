"""Who may load and unload models here, and with what."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard_common.auth.principals import Principal
from modelyard_common.errors import Denied, Invalid

from modelyard_inference.api.codecs.tensors import short

__all__ = ["check_load_parameters", "may_load"]


def may_load(principal: Principal) -> None:
    """Raise Denied unless this principal may load and unload models."""
    if principal.role not in ("service", "admin"):
        raise Denied(f"{principal.name} has the role {principal.role}; this takes service or admin")


def check_load_parameters(names: Iterable[str], *, unload: bool = False) -> None:
    """Raise Invalid for parameters that would change what a model is: the registry says that."""
    known = {"unload_dependents"} if unload else set()
    if unknown := set(names) - known:
        raise Invalid.at("parameters", f"{short(min(unknown))} is not taken: what a model is comes from the registry")
