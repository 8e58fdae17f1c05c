"""Starts the operator: finds the cluster, then serves. Reads nothing but the environment."""

from __future__ import annotations

from modelyard_common.cluster import Cluster
from modelyard_common.process import begin
from modelyard_common.serving import serve

from modelyard_operator.settings import OperatorSettings
from modelyard_operator.wiring import build

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM."""
    settings = begin("operator", OperatorSettings)
    serve(build(settings, Cluster.connect(settings.kubeconfig, timeout_s=settings.call_timeout_s)), settings)


if __name__ == "__main__":
    main()
