"""The inference service's settings: the only place that reads the environment (``MODELYARD_INFERENCE_*``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from modelyard_common.capacity import cpu_limit_cores
from modelyard_common.settings import ServiceSettings
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

__all__ = ["InferenceSettings", "environment_beside"]


class InferenceSettings(ServiceSettings):
    """What may be set, with its unit, default and reason."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_INFERENCE_", frozen=True, extra="ignore")

    port: int = Field(8080, ge=0, le=65535)
    grpc_port: int = Field(8090, ge=0, le=65535)
    """Where the Open Inference Protocol is spoken over gRPC, on the same host. 0: any free port, printed in the log."""
    processes: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = 1
    """Worker processes of this server, which share its ports. auto: as many as the cores that it may keep busy. Each
    holds the models, has its own part of the spool, and answers ``max_concurrent`` requests at once."""
    worker_patience_s: float = Field(30.0, ge=1)
    """How long one of several workers may stand still before it is replaced; probes would find the others."""
    max_body_bytes: int = Field(16 * 1024**2, ge=1024)
    """Ten thousand rows of a hundred numbers; a larger body takes too long to decode."""
    max_held_bytes: int = Field(256 * 1024**2, ge=1024)
    """What the bodies of all requests may take together while they arrive and are answered, unpacked; more get 429.
    Each of several processes has its part, and room for one body at least. The first 32 KiB of each are not counted,
    so that small requests are answered also while large ones fill it."""
    max_rows: int = Field(10_000, ge=1)
    """Rows in one request."""
    max_concurrent: int = Field(256, ge=1)
    """Requests being answered at once; more get 429. Far above what two cores keep busy."""
    timeout_s: float = Field(10.0, gt=0)
    """The deadline of a request, which the header ``modelyard-timeout-ms`` may lower."""
    candidate_share: float = Field(0.5, gt=0, lt=1)
    """Part of the time left that a candidate may take, so that the champion still answers in time."""
    breaker_failures: int = Field(3, ge=1)
    """Failures in a row after which a candidate gets no more requests here."""
    inline_rows: int = Field(32, ge=0)
    """Requests up to this many rows run on the event loop when the runtime is quick: a thread costs more."""
    batch_rows: int = Field(1024, ge=1)
    """Rows that run together at most, of requests that came in one turn or waited; 1: each request runs by itself.
    Where the runtime blocks, requests of up to a quarter of them are laid together with others."""
    model_runs: int = Field(1, ge=1)
    """Batches of one version that run at once when its runtime blocks: more share the interpreter, not the work."""
    run_patience_s: float = Field(1.0, gt=0, le=3600)
    """A batch that runs longer does not count among ``model_runs``: one input on which a model hangs holds the others
    up for this long, not until its deadline. Raise it where a model takes longer by rights and cannot run twice."""
    workers: int = Field(4, ge=1)
    """Threads for champions whose runtime blocks, and for large requests. One version takes half of them at most, but
    may always have two: one that hangs leaves the others theirs."""
    candidate_workers: int = Field(2, ge=1)
    """Threads for candidates, apart, so that one that hangs leaves the champion its own."""
    explain_rows: int = Field(16, ge=1)
    """Rows in one request for explanations: each is asked about hundreds of times, or thousands."""
    explain_evaluations: int = Field(100_000, ge=1000)
    """Rows that a model may be asked for one such request: about a second of a forest of a hundred trees."""
    poll_s: float = Field(1.0, gt=0)
    """Between two looks at the registry while its watch cannot be had."""
    resync_s: float = Field(30.0, gt=0)
    """Between two comparisons with the registry while the watch is open: a missed event is mended by then."""
    stale_after_s: float = Field(30.0, gt=0)
    """Routing older than this shows in ``/health/ready``; it is served all the same."""
    kept_versions: int = Field(1, ge=0)
    """Former champions that stay loaded, for a quick rollback."""
    start_patience_s: float = Field(60.0, ge=0)
    """How long a new server stays unready for a champion whose bundle cannot be had; its elders answer meanwhile."""
    cached_bundles: int = Field(8, ge=1)
    """Bundles kept on disk beside those in use."""
    memory_budget_bytes: int = Field(0, ge=0)
    """What all loaded models together may take, as estimated; those used longest ago make room and are loaded again
    when somebody asks. 0: no limit. With a budget, ``cached_bundles`` should be as many as there are models."""
    pinned_models: frozenset[str] = frozenset()
    """Models that never make room, as a JSON list."""
    shadow_rows: int = Field(2_000, ge=1)
    """Rows that wait for a shadow candidate; more are dropped and counted."""
    spool_max_bytes: int = Field(512 * 1024**2, ge=2048)
    """Disk that unsent events may take; a full spool drops and counts, and predictions go on."""
    spool_segment_bytes: int = Field(8 * 1024**2, ge=1024)
    """Size of one file of the spool; one that all have read becomes the next one, or is deleted."""
    spool_linger_s: float = Field(0.1, ge=0, le=1)
    """How long the sender gathers events before it sends: less is more requests, more is later news. A request costs
    as much as some hundred answers, which many small ones would take from the answers."""
    spool_sync_s: float = Field(0.5, gt=0, le=1)
    """Between two fsyncs of the spool: what a power failure may lose."""
    flush_s: float = Field(3.0, ge=0)
    """How long to send on after SIGTERM; the rest stays on disk."""
    sklearn_in_process: bool = False
    """Run scikit-learn in this process: quicker for small requests, and a model that crashes ends the server."""
    runtime_socket: Path | None = None
    """Where the inference runtime listens, in a folder shared with its container; none: it is a process that is started
    here when the first version needs it."""
    runtime_pyfunc: bool = False
    """Let the process that is started here load models by MLflow's pyfunc: code of whoever registered them."""
    runtime_memory_bytes: int = Field(0, ge=0)
    """Memory that one version may take in the process that is started here. 0: no limit."""
    remote_hosts: tuple[str, ...] = ()
    """Servers of others that may run models, as ``["host:port"]``: what a bundle names beside these is not asked."""
    remote_token_files: dict[str, Path] = {}
    """Bearer tokens for those of them that want one, as ``{"host:port": "/path/of/file"}``. Read for each call."""
    sink_url: str | None = Field(None, pattern=r"^https?://[^/\s?#]+(/[^\s]*)?$")
    """Where CloudEvents of what was answered are posted, under KServe's names; none, and only drift gets it."""
    sink_hosts: tuple[str, ...] = ()
    """The only hosts that payloads may go to, as ``["host:port"]`` or ``["host"]``. Empty: that of ``sink_url``."""
    sink_token_file: Path | None = None
    """A bearer token for the sink. Read again for each event."""
    sink_namespace: str = Field("default", min_length=1, max_length=253)
    """The ``namespace`` of the events."""
    sink_timeout_s: float = Field(5.0, gt=0, le=60)
    """How long the sink may take for one event."""
    sink_connections: int = Field(4, ge=1, le=64)
    """Events that are on their way to the sink at once."""
    instance: str = Field(default_factory=socket.gethostname, min_length=1)
    """The name of this server in reports and event batches."""

    @model_validator(mode="after")
    def _room_for_a_body(self) -> Self:
        if self.max_held_bytes < 2 * self.max_body_bytes:
            raise ValueError("max_held_bytes must hold one body of max_body_bytes at least, packed and unpacked")
        return self

    @model_validator(mode="after")
    def _room_to_rotate(self) -> Self:
        if self.spool_max_bytes < 2 * self.spool_segment_bytes * self.process_count:
            raise ValueError(
                "spool_max_bytes must hold at least two segments of spool_segment_bytes for each of processes"
            )
        return self

    @model_validator(mode="after")
    def _tokens_of_known_hosts(self) -> Self:
        if unknown := self.remote_token_files.keys() - set(self.remote_hosts):
            raise ValueError(f"remote_token_files: {min(unknown)} is not among remote_hosts, so it is not asked")
        return self

    @model_validator(mode="after")
    def _only_to_known_hosts(self) -> Self:
        if self.sink_url is None or not self.sink_hosts:
            return self
        url = urlsplit(self.sink_url)
        if {url.netloc, url.hostname}.isdisjoint(self.sink_hosts):
            raise ValueError(
                f"sink_url: payloads may not go to {url.netloc}; sink_hosts has {', '.join(self.sink_hosts)}"
            )
        return self

    def of_worker(self, *, port: int, grpc_port: int, of: int) -> Self:
        """Return the settings of one of several workers, which share what is a bound of all.

        Args:
            port, grpc_port: that all workers listen on.
            of: how many workers there are.
        """
        return self.model_copy(
            update={
                "port": port,
                "grpc_port": grpc_port,
                "spool_max_bytes": self.spool_max_bytes // of,
                # Each takes one whole body, whatever its share is.
                "max_held_bytes": max(self.max_held_bytes // of, 2 * self.max_body_bytes),
                # 0 would mean that there is none.
                "memory_budget_bytes": -(-self.memory_budget_bytes // of),
            }
        )

    @property
    def process_count(self) -> int:
        """How many worker processes there are."""
        return max(1, int(cpu_limit_cores())) if self.processes == "auto" else self.processes

    @property
    def home(self) -> Path:
        """Where this service keeps its spool, its bundles and its last routing."""
        return self.data_dir / "inference"


def environment_beside() -> Mapping[str, str]:
    """Return the environment of processes that are started here: without this service's own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
