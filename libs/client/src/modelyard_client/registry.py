"""The registry's client: models, versions, bundles, rollouts, routing, the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from modelyard_common.errors import Invalid, Unavailable
from modelyard_contracts.bundle_v1 import MANIFEST_FILE, BundleManifest, manifest_digest
from modelyard_contracts.registry_v1 import (
    LedgerView,
    ModelView,
    PlanView,
    PromotionRequest,
    PromotionView,
    RegisterVersionRequest,
    RollbackRequest,
    RolloutCommand,
    RolloutView,
    RoutingTable,
    RuntimeReport,
    VersionSummary,
    VersionView,
    WatchEvent,
)
from pydantic import ValidationError

from modelyard_client.base import ApiClient, write_whole

if TYPE_CHECKING:  # a large module, which most callers do without
    from modelyard_contracts.managed_model_v1alpha1 import ManagedModel

__all__ = ["RegistryClient"]

_REGISTER_TIMEOUT_S = 120.0
"""Registering reads and hashes every file of a bundle."""
_FILE_TIMEOUT_S = 60.0


class RegistryClient(ApiClient):
    """Calls the registry. Every method raises NotFound, Invalid, Conflict, Denied or Unavailable as the case is."""

    service = "registry"

    def apply(self, manifest: ManagedModel) -> ModelView:
        """Make the manifest the model's policy; applying the same twice changes nothing."""
        response = self._http.request("PUT", f"/v1/models/{manifest.metadata.name}", json=manifest.to_wire())
        return self._read(ModelView, response)

    def plan(self, manifest: ManagedModel) -> PlanView:
        """Return what applying the manifest would do; nothing is changed."""
        response = self._http.request("POST", f"/v1/models/{manifest.metadata.name}/plan", json=manifest.to_wire())
        return self._read(PlanView, response)

    def model(self, name: str) -> ModelView:
        """Return a model."""
        return self._get(ModelView, f"/v1/models/{name}")

    def models(self) -> list[ModelView]:
        """Return all models."""
        return self._pages(ModelView, "/v1/models")

    def delete(self, name: str) -> None:
        """Delete a model; its deletionPolicy says what becomes of versions."""
        self._http.request("DELETE", f"/v1/models/{name}")

    def register(self, model: str, request: RegisterVersionRequest) -> VersionView:
        """Offer a bundle for governance; idempotent by digest."""
        return self._send(
            VersionView,
            "POST",
            f"/v1/models/{model}/versions",
            request,
            idempotency_key=request.digest,
            timeout_s=_REGISTER_TIMEOUT_S,
        )

    def versions(self, model: str) -> list[VersionSummary]:
        """Return all versions of a model, newest first."""
        return self._pages(VersionSummary, f"/v1/models/{model}/versions")

    def version(self, model: str, ref: str | int) -> VersionView:
        """Return one version by its number or digest."""
        return self._get(VersionView, f"/v1/models/{model}/versions/{ref}")

    def file(self, model: str, digest: str, path: str) -> bytes:
        """Return one file of a bundle."""
        return self._http.request(
            "GET", f"/v1/models/{model}/versions/{digest}/files/{quote(path)}", timeout_s=60.0
        ).content

    def download_bundle(self, model: str, digest: str, into: Path) -> Path:
        """Write all files of a bundle into a folder; every one is hashed against the digest before it is kept.

        Raises:
            Invalid: the manifest or a file is not what the digest stands for; names the file.
        """
        raw = self.file(model, digest, MANIFEST_FILE)
        try:
            manifest = BundleManifest.model_validate_json(raw)
        except ValidationError as exc:
            raise Invalid(f"{MANIFEST_FILE} is not a bundle manifest: {exc.error_count()} wrong fields") from exc
        if str(manifest_digest(manifest)) != digest:
            raise Invalid(f"{MANIFEST_FILE} is not the manifest of {digest}")
        for entry in manifest.files:
            target = into / entry.path
            if not target.resolve().is_relative_to(into.resolve()):
                raise Invalid(f"{entry.path}: leads out of the bundle")
            content = self.file(model, digest, entry.path)
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != entry.digest:
                raise Invalid(f"{entry.path}: its digest is not the one in the manifest")
            write_whole(target, [content])
        write_whole(into / MANIFEST_FILE, [raw])
        return into

    def promote(self, model: str, request: PromotionRequest) -> PromotionView:
        """Ask for a version to become champion."""
        return self._send(PromotionView, "POST", f"/v1/models/{model}/promotions", request)

    def promotions(self, model: str) -> list[PromotionView]:
        """Return all promotions of a model, newest first."""
        return self._pages(PromotionView, f"/v1/models/{model}/promotions")

    def waiting(self, model: str) -> list[PromotionView]:
        """Return the promotions of a model that wait for a person, newest first."""
        found = self._pages(PromotionView, f"/v1/models/{model}/promotions", {"state": "pending"})
        # A registry of before lists all of them, whatever it is asked.
        return [promotion for promotion in found if promotion.state == "pending"]

    def approve(self, promotion: str) -> PromotionView:
        """Approve a promotion that waits for a person."""
        return self._send(PromotionView, "POST", f"/v1/promotions/{promotion}/approve")

    def reject(self, promotion: str) -> PromotionView:
        """Reject a promotion that waits for a person."""
        return self._send(PromotionView, "POST", f"/v1/promotions/{promotion}/reject")

    def pause(self, model: str, reason: str = "") -> RolloutView:
        """Hold the running rollout where it is."""
        return self._rollout(model, "pause", reason)

    def resume(self, model: str, reason: str = "") -> RolloutView:
        """Let a paused rollout go on."""
        return self._rollout(model, "resume", reason)

    def abort(self, model: str, reason: str = "") -> RolloutView:
        """End the running rollout and keep the champion."""
        return self._rollout(model, "abort", reason)

    def _rollout(self, model: str, verb: str, reason: str) -> RolloutView:
        return self._send(RolloutView, "POST", f"/v1/models/{model}/rollout/{verb}", RolloutCommand(reason=reason))

    def rollback(self, model: str, request: RollbackRequest) -> RolloutView:
        """Return to the previous champion, or the one named, at once."""
        return self._send(RolloutView, "POST", f"/v1/models/{model}/rollback", request)

    def rollouts(self, model: str) -> list[RolloutView]:
        """Return all rollouts of a model, newest first."""
        return self._pages(RolloutView, f"/v1/models/{model}/rollouts")

    def routing(self, model: str) -> RoutingTable:
        """Return who answers what."""
        return self._get(RoutingTable, f"/v1/models/{model}/routing")

    def report(self, model: str, report: RuntimeReport) -> None:
        """Tell what became of a version on a server."""
        self._http.request(
            "POST", f"/v1/models/{model}/runtime-reports", json=report.model_dump(mode="json", exclude_unset=True)
        )

    def ledger(self, model: str | None = None, *, cursor: str | None = None) -> LedgerView:
        """Return a page of what was decided, oldest first, and whether the chain is intact."""
        return self._get(LedgerView, "/v1/ledger", model=model, cursor=cursor)

    def watch(
        self,
        last_event_id: int | None = None,
        *,
        timeout_s: float = 15.0,
        ended: Callable[[], bool] = lambda: False,
    ) -> Iterator[WatchEvent]:
        """Yield events as they come, heartbeats left out; ends when the registry ends the stream.

        Args:
            last_event_id: continue after this one.
            timeout_s: silence after which the stream counts as broken; heartbeats come every 5 s.
            ended: asked at each of those too; whether the stream is to be closed, since nobody listens any more.

        Raises:
            Unavailable: the stream could not be opened, or broke.
        """
        headers = {"accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = str(last_event_id)
        with self._http.stream("GET", "/v1/watch", headers=headers, timeout_s=timeout_s) as response:
            for line in response.iter_lines():
                if ended():
                    return
                if line.startswith("data:"):
                    yield self._event(line[5:])

    def _event(self, text: str) -> WatchEvent:
        try:
            return WatchEvent.model_validate_json(text)
        except ValidationError as exc:
            raise Unavailable(f"{self.service} at {self._http.shown_url} sent something that is no WatchEvent") from exc
