"""Constructs the supervisor of a server of several processes. It answers no requests, and knows no model."""

from __future__ import annotations

import contextlib
import socket

from modelyard_client import RegistryClient
from modelyard_common.errors import Unavailable
from modelyard_common.logs import get_logger
from modelyard_common.serving import bound
from modelyard_common.tasks import Task
from modelyard_common.tracing import shutdown_tracing

from modelyard_inference.adapters.reports import RuntimeReports
from modelyard_inference.adapters.workers.merged_reports import MergedReports
from modelyard_inference.adapters.workers.pod import Pod
from modelyard_inference.adapters.workers.supervisor import Supervisor
from modelyard_inference.settings import InferenceSettings

__all__ = ["supervise"]

_log = get_logger(__name__)
_WORKER = "modelyard_inference.worker"
_TASKS_END_S = 15.0
"""What a worker's tasks and closers may take after its requests are answered."""
_REPORTS_S = 0.5
_LAST_REPORT_S = 2.0


def supervise(settings: InferenceSettings) -> int:
    """Run the workers until SIGTERM, and return the exit code.

    Raises:
        Unavailable: a port is taken.
    """
    size = settings.process_count
    registry = RegistryClient(settings.registry_url, token_file=settings.token_file)
    reports = RuntimeReports(registry, settings.instance)
    delivery = Task("reports", reports.deliver, _REPORTS_S)
    with contextlib.ExitStack() as held:
        # Held, and never listened on: nobody else can take the ports while a worker is begun again.
        ports = [
            held.enter_context(_reserved(name, settings.host, port))
            for name, port in (("port", settings.port), ("grpc_port", settings.grpc_port))
        ]
        http, grpc = (one.getsockname()[1] for one in ports)
        _log.info("workers.planned", count=size, port=http, grpc_port=grpc)
        delivery.start()
        supervisor = Supervisor(
            pod=Pod(size, MergedReports(reports, size)),
            size=size,
            port=http,
            grpc_port=grpc,
            module=_WORKER,
            end_s=settings.drain_s + settings.grace_s + settings.flush_s + _TASKS_END_S,
            patience_s=settings.worker_patience_s,
        )
        try:
            return supervisor.run()
        finally:
            delivery.stop()
            delivery.join(_LAST_REPORT_S)
            registry.close()
            shutdown_tracing()


def _reserved(name: str, host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for the workers. Raise Unavailable when another server has it."""
    try:
        # First alone: a port that is only shared would be shared with another server of ours too.
        with bound(host, port) as alone:
            chosen = alone.getsockname()[1]
        return bound(host, chosen, shared=True)
    except OSError as exc:
        raise Unavailable(f"{name}: {host}:{port} cannot be listened on; is it taken?") from exc
