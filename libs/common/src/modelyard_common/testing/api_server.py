"""A Kubernetes API server in memory, on a real socket: collections, versions, conflicts, finalizers, watches.

It keeps the rules that controllers trip over (AlreadyExists, stale resourceVersions, 410 after a compaction, the status
subresource, deletion that waits for finalizers) and knows no kind: what a controller of the cluster would do to an
object, a test does through ``create``, ``modify`` and ``remove``.
"""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

__all__ = ["ApiServer", "Refusal", "kubeconfig_of"]

Document = dict[str, Any]


class Refusal(Exception):
    """The server answers with a Status of this code."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code, self.reason, self.message = code, reason, message
        super().__init__(message)


def kubeconfig_of(folder: Path, url: str, *, token: str = "") -> Path:
    """Write the kubeconfig of a server into a folder; return its path."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


@dataclass(frozen=True, slots=True)
class _Place:
    """What a path names; ``name`` is empty for a collection, ``namespace`` for one over all namespaces."""

    plural: str
    namespace: str = ""
    name: str = ""
    sub: str = ""

    @classmethod
    def parse(cls, path: str) -> _Place:
        parts = path.strip("/").split("/")
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        return cls(rest[0], namespace, *rest[1:3])


@dataclass
class ApiServer:
    """The server; ``app`` is served by ``modelyard_common.testing.running``."""

    token: str | None = None
    """When set, requests without this bearer token are refused."""
    check: Callable[[str, Document], str | None] = lambda plural, document: None
    """Says what is wrong with an object (by plural) that is created or changed, as admission does."""
    log_of: Callable[[str], bytes] = lambda pod: b""
    """Gives the log of a pod."""
    requests: list[tuple[str, str, Document | None]] = field(default_factory=list)
    """Method, path and body of every request that changes something."""
    away: bool = False
    """Every request is answered 503."""
    refusals: list[Refusal] = field(default_factory=list)
    """The next changes are refused with these, first one first."""
    created: list[Callable[[str, Document], None]] = field(default_factory=list)
    """Called after each creation and change with the plural and the object, in a thread of the server."""

    def __post_init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Document] = {}
        self._events: list[tuple[int, str, str, Document]] = []
        self._version = 0
        self._compacted = 0
        self._changed = threading.Condition(threading.RLock())
        self.app = Starlette(
            routes=[Route("/{path:path}", self._serve, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]
        )

    def create(self, plural: str, document: Document, *, namespace: str = "default") -> Document:
        """Create an object, as a request does."""
        with self._changed:
            document = copy.deepcopy(document)
            meta = document.setdefault("metadata", {})
            meta.setdefault("name", f"{meta.get('generateName', '')}{uuid.uuid4().hex[:5]}")
            key = (plural, namespace, meta["name"])
            if key in self._objects:
                raise Refusal(409, "AlreadyExists", f'{plural} "{meta["name"]}" already exists')
            self._admit(plural, document)
            meta |= {
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "generation": 1,
            }
            return self._store("ADDED", key, document)

    def get(self, plural: str, name: str, *, namespace: str = "default") -> Document:
        """Return a copy of an object."""
        with self._changed:
            found = self._objects.get((plural, namespace, name))
            if found is None:
                raise Refusal(404, "NotFound", f'{plural} "{name}" not found')
            return copy.deepcopy(found)

    def all(self, plural: str, namespace: str = "default", **labels: str) -> list[Document]:
        """Return copies of the objects with these labels, oldest first."""
        with self._changed:
            return [
                copy.deepcopy(document)
                for (kind, space, _), document in self._objects.items()
                if kind == plural
                and namespace in ("", space)
                and labels.items() <= document["metadata"].get("labels", {}).items()
            ]

    def modify(
        self, plural: str, name: str, change: Document, *, namespace: str = "default", sub: str = ""
    ) -> Document:
        """Merge a change into an object, as a merge patch does."""
        with self._changed:
            old = self.get(plural, name, namespace=namespace)
            wanted = change.get("metadata", {}).get("resourceVersion")
            if wanted is not None and wanted != old["metadata"]["resourceVersion"]:
                raise Refusal(409, "Conflict", f'{plural} "{name}" has been modified; get it again')
            new = _merged(old, {"status": change.get("status")} if sub == "status" else change)
            return self._update((plural, namespace, name), old, new)

    def remove(self, plural: str, name: str, *, namespace: str = "default") -> None:
        """Delete an object; one with finalizers is marked and stays until they are gone."""
        with self._changed:
            old = self.get(plural, name, namespace=namespace)
            if old["metadata"].get("finalizers"):
                if "deletionTimestamp" not in old["metadata"]:
                    old["metadata"]["deletionTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    self._store("MODIFIED", (plural, namespace, name), old)
                return
            self._drop((plural, namespace, name), old)

    def compact(self) -> None:
        """Forget the events so far: a watch from an older version gets 410 Gone."""
        with self._changed:
            self._compacted = self._version
            self._events.clear()
            self._changed.notify_all()

    def _admit(self, plural: str, document: Document) -> None:
        wrong = self.check(plural, document)
        if wrong is not None:
            raise Refusal(422, "Invalid", wrong)

    def _update(self, key: tuple[str, str, str], old: Document, new: Document) -> Document:
        if new == old:
            return old
        self._admit(key[0], new)
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self._drop(key, new)
            return new
        return self._store("MODIFIED", key, new)

    def _store(self, kind: str, key: tuple[str, str, str], document: Document) -> Document:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = document
        self._events.append((self._version, kind, key[0], copy.deepcopy(document)))
        self._changed.notify_all()
        for tell in self.created:
            tell(key[0], copy.deepcopy(document))
        return copy.deepcopy(document)

    def _drop(self, key: tuple[str, str, str], document: Document) -> None:
        self._version += 1
        del self._objects[key]
        document["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, "DELETED", key[0], copy.deepcopy(document)))
        self._changed.notify_all()

    async def _serve(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"null")
        try:
            return self._answer(request, _Place.parse(request.url.path), body)
        except Refusal as refusal:
            return JSONResponse(_status(refusal), status_code=refusal.code)

    def _answer(self, request: Request, place: _Place, body: Document | None) -> Response:
        if self.away:
            raise Refusal(503, "ServiceUnavailable", "the server is currently unable to handle the request")
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if request.method == "GET":
            return self._read(request, place)
        self.requests.append((request.method, request.url.path, body))
        if self.refusals:
            raise self.refusals.pop(0)
        match request.method:
            case "POST":
                return JSONResponse(self.create(place.plural, body or {}, namespace=place.namespace), status_code=201)
            case "DELETE":
                self.remove(place.plural, place.name, namespace=place.namespace)
                return JSONResponse({"kind": "Status", "status": "Success"})
            case "PUT":
                return JSONResponse(self._replace(place, body or {}))
        return JSONResponse(self.modify(place.plural, place.name, body or {}, namespace=place.namespace, sub=place.sub))

    def _replace(self, place: _Place, body: Document) -> Document:
        with self._changed:
            old = self.get(place.plural, place.name, namespace=place.namespace)
            if body["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
                raise Refusal(409, "Conflict", f'{place.plural} "{place.name}" has been modified; get it again')
            new = old | {"spec": body.get("spec")}
            return self._update((place.plural, place.namespace, place.name), old, copy.deepcopy(new))

    def _read(self, request: Request, place: _Place) -> Response:
        if place.sub == "log":
            self.get(place.plural, place.name, namespace=place.namespace)
            limit = request.query_params.get("limitBytes")
            return Response(self.log_of(place.name)[: int(limit) if limit else None], media_type="text/plain")
        if place.name:
            return JSONResponse(self.get(place.plural, place.name, namespace=place.namespace))
        if request.query_params.get("watch") == "true":
            since, seconds = (int(request.query_params[name]) for name in ("resourceVersion", "timeoutSeconds"))
            return StreamingResponse(self._stream(place, since, seconds), media_type="application/json")
        selector = request.query_params.get("labelSelector", "")
        labels = dict(part.split("=", 1) for part in selector.split(",") if part)
        with self._changed:
            items = self.all(place.plural, place.namespace, **labels)
            begin = int(request.query_params.get("continue", 0))
            end = begin + int(request.query_params.get("limit", len(items)))
            meta = {"resourceVersion": str(self._version), "continue": str(end) if end < len(items) else ""}
            return JSONResponse({"metadata": meta, "items": items[begin:end]})

    def _stream(self, place: _Place, since: int, seconds: int) -> Iterator[bytes]:
        told = since
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.away:
            with self._changed:
                if told < self._compacted:
                    gone = _status(Refusal(410, "Expired", f"too old resource version: {told}"))
                    yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
                    return
                news = [event for event in self._events if event[0] > told]
                if not news:
                    self._changed.wait(0.1)
            for version, kind, plural, document in news:
                told = version
                if plural == place.plural and place.namespace in ("", document["metadata"]["namespace"]):
                    yield json.dumps({"type": kind, "object": document}).encode() + b"\n"


def _merged(old: Any, change: Any) -> Any:
    """Return what a merge patch makes of a value (RFC 7386)."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new


def _status(refusal: Refusal) -> Document:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": refusal.code,
        "reason": refusal.reason,
        "message": refusal.message,
    }
