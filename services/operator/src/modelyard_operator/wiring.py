"""Constructs the operator: the only module that knows all of its parts."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from modelyard_client import DriftClient, InferenceClient, RegistryClient, TrainingClient
from modelyard_common.app import create_app
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.cluster import Cluster
from modelyard_common.cluster_account import owner_reference
from modelyard_common.health import Health
from modelyard_common.tasks import Task

from modelyard_operator.adapters import metrics
from modelyard_operator.adapters.leases import ClusterLeases
from modelyard_operator.adapters.objects import ClusterObjects
from modelyard_operator.adapters.peers import ServicePeers
from modelyard_operator.settings import OperatorSettings
from modelyard_operator.usecases.follow import Follow
from modelyard_operator.usecases.lead import Lead
from modelyard_operator.usecases.look_round import LookRound

__all__ = ["build"]

# Rounds, with the backoff of a failing task between them, before the objects count as out of sight.
_MISSED_ROUNDS = 3
_LONGEST_BACKOFF_S = 10.0


def build(settings: OperatorSettings, cluster: Cluster, *, clock: Clock | None = None) -> FastAPI:
    """Return the application; whoever serves it starts and stops its tasks.

    Args:
        settings: as read from the environment.
        cluster: closed with the application.
        clock: another one, for tests.
    """
    clock = clock or SystemClock()
    peers = _peers(settings)
    objects = ClusterObjects(cluster, namespace=settings.namespace, watch_s=settings.watch_s)
    owner = owner_reference(settings.namespace)
    leases = ClusterLeases(cluster, namespace=settings.namespace, name=settings.lease_name, owner=owner)
    lead = Lead(leases, clock, settings.identity, settings.lease_s)
    look = LookRound(objects, peers, clock, lead.holds, metrics.acted, metrics.failed)
    rounds = Task("rounds", lambda _: _timed(look, lead), settings.resync_s)
    lead.took = rounds.wake
    follow = Follow(objects, rounds.wake)
    tasks = [
        Task("lease", lambda _: lead(), settings.lease_s / 3),
        rounds,
        Task("watch", lambda _: follow()),
    ]
    return create_app(
        service="operator",
        settings=settings,
        routers=[],
        health=_health(settings, look, clock),
        tasks=tasks,
        on_close=[lead.release, peers.close, cluster.close],
        state={"look": look, "lead": lead},
    )


def _peers(settings: OperatorSettings) -> ServicePeers:
    token_file, timeout_s = settings.token_file, settings.call_timeout_s
    return ServicePeers(
        registry=RegistryClient(settings.registry_url, token_file=token_file, timeout_s=timeout_s),
        training=TrainingClient(settings.training_url, token_file=token_file, timeout_s=timeout_s),
        drift_client=DriftClient(settings.drift_url, token_file=token_file, timeout_s=timeout_s),
        inference=InferenceClient(settings.inference_url, token_file=token_file, timeout_s=timeout_s),
    )


def _timed(look: LookRound, lead: Lead) -> None:
    metrics.LEADER.set(lead.holds())
    with metrics.ROUND_SECONDS.time():
        look()


def _health(settings: OperatorSettings, look: LookRound, clock: Clock) -> Health:
    """Return the checks: without the cluster the operator can do nothing; a service that is away is a fact to show."""
    health = Health()
    patience_s = _MISSED_ROUNDS * settings.resync_s + _LONGEST_BACKOFF_S + settings.call_timeout_s

    def cluster() -> str | None:
        if look.listed is None:
            return "the objects have not been listed yet"
        age_s = clock.monotonic() - look.listed
        return f"the objects were last listed {age_s:.0f} s ago" if age_s > patience_s else None

    health.add("cluster", cluster, critical=True)
    for service in ("registry", "training", "drift", "inference"):
        health.add(service, _said(look, service), critical=False)
    return health


def _said(look: LookRound, service: str) -> Callable[[], str | None]:
    return lambda: look.away.get(service)
