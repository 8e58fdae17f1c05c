"""Drift's client: events, labels, labelled rows, windows, episodes, decisions, comparisons, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard_common.errors import Invalid, ModelyardError
from modelyard_contracts.drift_v1 import (
    Comparison,
    DecisionView,
    DriftStatus,
    EpisodeView,
    LabelBatch,
    LabelReceipt,
    WindowView,
)
from modelyard_contracts.events_v1 import EventBatch, EventReceipt
from modelyard_contracts.pages import Page
from modelyard_contracts.prediction_blocks_v1 import BLOCKS_MEDIA_TYPE, name_frame
from pydantic import RootModel

from modelyard_client.base import ApiClient, write_whole

__all__ = ["DriftClient", "TakesNoBlocks"]


class TakesNoBlocks(ModelyardError):
    """This drift does not take predictions in blocks: its version is older. Send them as JSON."""


_OF_BLOCKS = ("source", "blocks")
"""The fields of a body of blocks."""


class _Report(RootModel[dict[str, Any]]):
    """A report, which is read by people and plots."""


class DriftClient(ApiClient):
    """Calls drift. Every method raises NotFound, Invalid, Conflict, Denied or Unavailable as the case is."""

    service = "drift"

    def send_events(self, batch: EventBatch) -> EventReceipt:
        """Hand over prediction events; repeated ones are counted as duplicates."""
        return self._send(EventReceipt, "POST", "/v1/events", batch)

    def send_blocks(self, source: str, blocks: bytes) -> EventReceipt:
        """Hand over prediction events in blocks, see ``prediction_blocks_v1``; repeated ones are counted as duplicates.

        Args:
            source: which inference instance sends.
            blocks: each as MessagePack, in frames, one behind the other. They are not looked into.

        Raises:
            TakesNoBlocks: drift knows JSON only.
        """
        parts = (name_frame(source), blocks)
        try:
            content = self._http.post_large("/v1/events", parts, {"content-type": BLOCKS_MEDIA_TYPE})
        except Invalid as exc:
            # Who has read blocks names what is wrong with them; who has not says so of the body, or of its type.
            if not any(error.path.startswith(_OF_BLOCKS) for error in exc.errors):
                raise TakesNoBlocks from exc
            raise
        return self._shaped(EventReceipt, content)

    def send_labels(self, model: str, batch: LabelBatch) -> LabelReceipt:
        """Hand over labels; repeated ones change nothing."""
        return self._send(LabelReceipt, "POST", f"/v1/models/{model}/labels", batch)

    def labelled(self, model: str, until: int | None, into: Path) -> Path:
        """Write the labelled rows, with labels received up to a sequence number, to a Parquet file."""
        params = {"until": until}
        with self._http.stream("GET", f"/v1/models/{model}/labelled", params=params, timeout_s=60.0) as response:
            return write_whole(into, response.iter_bytes(1 << 20))

    def status(self, model: str) -> DriftStatus:
        """Return where drift stands."""
        return self._get(DriftStatus, f"/v1/models/{model}/status")

    def windows(self, model: str) -> list[WindowView]:
        """Return closed windows, newest first."""
        return self._pages(WindowView, f"/v1/models/{model}/windows")

    def episodes(self, model: str) -> list[EpisodeView]:
        """Return episodes, newest first."""
        return self._pages(EpisodeView, f"/v1/models/{model}/episodes")

    def decisions(self, model: str) -> list[DecisionView]:
        """Return decisions, newest first."""
        return self._pages(DecisionView, f"/v1/models/{model}/decisions")

    def comparison(self, model: str, revision: int) -> Comparison:
        """Return candidate and champion within one routing revision."""
        return self._get(Comparison, f"/v1/models/{model}/comparison", revision=revision)

    def report(self, model: str, window: str) -> dict[str, Any]:
        """Return the report on a window."""
        response = self._http.request("GET", f"/v1/models/{model}/reports/{window}")
        return self._read(_Report, response).root

    def report_html(self, model: str, window: str) -> str:
        """Return the report on a window as a page that needs nothing else."""
        params = {"format": "html"}
        return self._http.request("GET", f"/v1/models/{model}/reports/{window}", params=params).text

    def prediction_ids(self, model: str) -> list[str]:
        """Return the ids of all answers in the log (never shadow copies), in the order of ingest."""
        return self._walk(Page[str], f"/v1/models/{model}/predictions")
