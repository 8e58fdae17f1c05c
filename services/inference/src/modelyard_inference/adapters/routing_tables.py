"""The registry's routing tables as the engine's, and the file that keeps those in force for a restart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from modelyard_common.logs import get_logger
from modelyard_common.tracing import parse_traceparent
from modelyard_contracts.registry_v1 import CandidateRoute, Route, RoutingTable
from pydantic import TypeAdapter, ValidationError

from modelyard_inference.domain.routing import Candidate, Routing, Version

__all__ = ["RoutingFile", "routing_from", "table_from"]

_log = get_logger(__name__)
_TABLES: TypeAdapter[tuple[RoutingTable, ...]] = TypeAdapter(tuple[RoutingTable, ...])


def routing_from(table: RoutingTable) -> Routing:
    """Return a table as the engine sees it."""
    champion, candidate = table.champion, table.candidate
    return Routing(
        model=table.model,
        revision=table.revision,
        champion=Version(champion.number, champion.digest) if champion else None,
        candidate=Candidate(Version(candidate.number, candidate.digest), candidate.weight, candidate.shadow)
        if candidate
        else None,
        log_payloads=table.log_payloads,
        redact=frozenset(table.redact),
        batch_rows=table.batch_rows,
        replay=table.replay,
        traceparent=parse_traceparent(table.traceparent),
    )


def table_from(routing: Routing) -> RoutingTable:
    """Return the way back, without its trace. Law: ``routing_from(table_from(routing)) == routing``."""
    champion, candidate = routing.champion, routing.candidate
    return RoutingTable(
        model=routing.model,
        revision=routing.revision,
        champion=Route(number=champion.number, digest=champion.digest) if champion else None,
        candidate=CandidateRoute(
            number=candidate.version.number,
            digest=candidate.version.digest,
            weight=candidate.weight,
            shadow=candidate.shadow,
        )
        if candidate
        else None,
        log_payloads=routing.log_payloads,
        redact=tuple(sorted(routing.redact)),
        batch_rows=routing.batch_rows,
        replay=routing.replay,
    )


class RoutingFile:
    """What was in force, on disk: replaced whole, so that a reader sees the old or the new."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Routing]:
        """Return what was in force; nothing when there is no file, or one that cannot be read."""
        try:
            return [routing_from(table) for table in _TABLES.validate_json(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as exc:
            _log.error("routing_file.unreadable", kind=type(exc).__name__)
            return []

    def save(self, routings: Sequence[Routing]) -> None:
        """Replace what is kept. A disk that refuses is logged: what is served does not depend on it."""
        part = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as handle:
                handle.write(_TABLES.dump_json(tuple(table_from(routing) for routing in routings)))
                handle.flush()
                os.fsync(handle.fileno())
            part.replace(self._path)
        except OSError as exc:
            _log.error("routing_file.not_written", kind=type(exc).__name__)
