"""The values of each chart: what it adds to the common ones, and its own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from modelyard_common.settings import ServiceSettings
from modelyard_drift.settings import DriftSettings
from modelyard_inference.settings import InferenceSettings
from modelyard_operator.settings import OperatorSettings
from modelyard_registry.settings import RegistrySettings
from modelyard_training.settings import TrainingSettings
from pydantic import Field

from tools.charts.common import (
    Auth,
    AutoscaledService,
    ClosedNetwork,
    Database,
    Global,
    Image,
    Migrations,
    ObjectStore,
    Persistence,
    Probe,
    Replicated,
    Resources,
    Routed,
    Service,
    ServiceAccount,
    Shutdown,
    Workload,
)
from tools.charts.kinds import KubernetesList, Name, Quantity, SecretKey, SecretName, Texts, Url, Values

__all__ = ["CHARTS", "Chart", "Observability"]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and what its values are made of."""

    values: type[Values]
    settings: type[ServiceSettings] | None = None
    owned: frozenset[str] = frozenset()
    """Settings that other values of this chart decide, beside those of every chart."""


def _resources(cpu: str, memory: str, limit: str) -> Resources:
    return Resources(requests={"cpu": cpu, "memory": memory}, limits={"memory": limit})


def _database(key: str) -> Database:
    return Database(url_key=key)


# --- registry ---------------------------------------------------------------------------------------------------------


class RegistryPeers(Values):
    """Addresses of what the registry talks to; empty: this platform's own, by name."""

    mlflow: Url = ""
    """MLflow."""
    drift: Url = ""
    """Drift: the evidence for rollouts."""


class Registry(AutoscaledService):
    """The registry: policy, versions, promotions, routing."""

    image: Image = Image(repository="modelyard/registry")
    """The image."""
    resources: Resources = _resources("200m", "256Mi", "1Gi")
    """What the container asks for and may use."""
    auth: Auth = Auth(token_key="registry")  # noqa: S106  # the name of a key
    """Who may call, and as whom it calls."""
    database: Database = _database("registry")
    """Its database."""
    migrations: Migrations = Migrations(database=_database("registry"))
    """Its schema."""
    peers: RegistryPeers = RegistryPeers()
    """Addresses of others."""


# --- training ---------------------------------------------------------------------------------------------------------


class TrainingPeers(Values):
    """Addresses of what training and its jobs talk to; empty: this platform's own, by name."""

    registry: Url = ""
    """The registry."""
    drift: Url = ""
    """Drift: labelled rows."""
    mlflow: Url = ""
    """MLflow, which jobs write their runs to."""


class Jobs(Values):
    """The pods that train: Jobs that training makes in its own namespace."""

    image: Image = Image(repository="modelyard/trainer")
    """The image of the trainer."""
    token_key: SecretKey = "trainer"  # noqa: S105  # a name
    """Key of `auth.existingSecret` with the token that jobs call the platform with."""
    service_account: ServiceAccount = ServiceAccount()
    """The jobs' identity: without any rights, and its token is never mounted."""
    secrets: list[SecretName] = []
    """Secrets whose keys become environment variables of jobs."""
    labels: Texts = {}
    """More labels of Jobs and their pods, for cost reports."""
    node_selector: Texts = {}
    """Labels that a node must have to train."""
    tolerations: KubernetesList = []
    """Taints that jobs put up with."""
    disk: str = Field("10Gi", pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)$")
    """The most that a job may write; more ends it."""
    ttl_seconds: int = Field(86400, ge=3600)
    """How long a finished Job stays for people to look at."""
    start_patience_seconds: int = Field(600, ge=0)
    """How long a pod may fail to start before its run is failed: a cluster that grows needs minutes for a node."""
    network_policy: ClosedNetwork = ClosedNetwork()
    """Edges of the jobs beside those of the service graph."""


class Training(Routed, Service):
    """Training: dataset versions, runs, schedules. One replica: dataset files lie on its volume."""

    replicas: int = Field(1, ge=1, le=1)
    """Always one: dataset files lie on its volume, and uploads in progress are its own."""
    image: Image = Image(repository="modelyard/training")
    """The image."""
    resources: Resources = _resources("200m", "512Mi", "2Gi")
    """What the container asks for and may use; a dataset is converted in memory at three times its size."""
    auth: Auth = Auth(token_key="training")  # noqa: S106  # the name of a key
    """Who may call, and as whom it and its jobs call."""
    database: Database = _database("training")
    """Its database."""
    migrations: Migrations = Migrations(database=_database("training"))
    """Its schema."""
    persistence: Persistence = Persistence(enabled=True, size="20Gi")
    """The datasets. Without a claim they are lost with the pod."""
    peers: TrainingPeers = TrainingPeers()
    """Addresses of others."""
    jobs: Jobs = Jobs()
    """Training jobs."""


# --- inference --------------------------------------------------------------------------------------------------------


class InferencePeers(Values):
    """Addresses of what inference talks to; empty: this platform's own, by name."""

    registry: Url = ""
    """The registry: routing and bundles."""
    drift: Url = ""
    """Drift: what was answered."""


class SpoolShutdown(Shutdown):
    """How a pod ends: first requests finish, then the spool is flushed."""

    flush_seconds: float = Field(4, ge=0, le=5)
    """Then the spool is sent to drift for so long; the rest stays on /data. At most 5: a task has 10 to end."""


class InferenceRuntime(Values):
    """The inference runtime: a container beside, which runs models that may crash, leak or be code."""

    enabled: bool = False
    """True: scikit-learn and, where allowed, pyfunc models are served. False: models with an ONNX twin, and remote
    ones."""
    image: Image = Image(repository="modelyard/inference-runtime")
    """Its image; one made from it brings more flavours of MLflow."""
    pyfunc: bool = False
    """Load models by MLflow's pyfunc: they are code, of whoever may register one."""
    memory_per_version: int = Field(0, ge=0)
    """Bytes that the process of one version may take; a leak ends there. 0: the container's limit is the only one."""
    resources: Resources = _resources("250m", "384Mi", "2Gi")
    """What its container asks for and may use; each version takes about 250 MB, part of it shared."""
    liveness: Probe = Probe(period_seconds=20, timeout_seconds=5)
    """Does it answer at its socket? Failing restarts it. It has no say in whether the pod is ready: what it does not
    run is served without it."""
    size: Quantity = "2Gi"
    """The most that may lie in the folder that both containers share: sockets, and the bundles that run there."""


class RoundTrip(Values):
    """`helm test`: one inference round trip with a token, through the Service."""

    model: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$")
    """The model that must answer; empty: every model that is served, and none is fine on a fresh install."""
    token_key: SecretKey = "client"  # noqa: S105
    """Key of `auth.existingSecret` with a client's token."""
    timeout_seconds: int = Field(60, ge=5)
    """How long the answer may take to come."""
    argocd_post_sync: bool = False
    """True: the same as a PostSync Job, since Argo CD does not run Helm's tests."""


class Inference(AutoscaledService):
    """Inference: V2 and MLflow scoring over the registry's routing."""

    replicas: int = Field(2, ge=1)
    """Pods, where no autoscaler decides."""
    image: Image = Image(repository="modelyard/inference")
    """The image."""
    resources: Resources = _resources("500m", "512Mi", "2Gi")
    """What the container asks for and may use; models and their caches are in memory."""
    shutdown: SpoolShutdown = SpoolShutdown()
    """How pods end."""
    persistence: Persistence = Persistence(size="5Gi")
    """The spool of unsent records and the cache of bundles. Without a claim, what is unsent dies with a pod's node."""
    auth: Auth = Auth(token_key="inference")  # noqa: S106  # the name of a key
    """Who may call, and as whom it calls."""
    peers: InferencePeers = InferencePeers()
    """Addresses of others."""
    runtime: InferenceRuntime = InferenceRuntime()
    """The container that runs what this one should not."""
    test: RoundTrip = RoundTrip()
    """`helm test`."""


# --- drift ------------------------------------------------------------------------------------------------------------


class DriftPeers(Values):
    """Addresses of what drift talks to; empty: this platform's own, by name."""

    registry: Url = ""
    """The registry: policies and baselines."""
    training: Url = ""
    """Training: retrain commands."""


class Drift(AutoscaledService):
    """Drift: the prediction log, windows, labels, episodes, decisions."""

    image: Image = Image(repository="modelyard/drift")
    """The image."""
    resources: Resources = _resources("300m", "512Mi", "2Gi")
    """What the container asks for and may use."""
    auth: Auth = Auth(token_key="drift")  # noqa: S106  # the name of a key
    """Who may call, and as whom it calls."""
    database: Database = _database("drift")
    """Its database."""
    migrations: Migrations = Migrations(database=_database("drift"))
    """Its schema."""
    peers: DriftPeers = DriftPeers()
    """Addresses of others."""


# --- operator ---------------------------------------------------------------------------------------------------------


class OperatorPeers(Values):
    """Addresses of what the operator talks to; empty: this platform's own, by name."""

    registry: Url = ""
    """The registry."""
    training: Url = ""
    """Training."""
    drift: Url = ""
    """Drift."""
    inference: Url = ""
    """Inference."""


class Operator(Replicated, Service):
    """The operator: ManagedModel objects to API calls, and their status back. Of several pods one works, by a Lease."""

    image: Image = Image(repository="modelyard/operator")
    """The image."""
    resources: Resources = _resources("50m", "128Mi", "512Mi")
    """What the container asks for and may use."""
    auth: Auth = Auth(token_key="operator")  # noqa: S106  # the name of a key
    """Who may call, and as whom it calls."""
    peers: OperatorPeers = OperatorPeers()
    """Addresses of others."""


# --- mlflow -----------------------------------------------------------------------------------------------------------


class Mlflow(Routed, Replicated, Workload):
    """MLflow: runs, artifacts, model records. Reached by the registry and by training jobs only."""

    image: Image = Image(registry="ghcr.io", repository="mlflow/mlflow", tag="v3.17.2-full")
    """An image with `mlflow` on its PATH, the driver of PostgreSQL and the client of the object store."""
    resources: Resources = _resources("200m", "768Mi", "1536Mi")
    """What the container asks for and may use."""
    database: Database = _database("mlflow")
    """Its database."""
    migrations: Migrations = Migrations(database=_database("mlflow"), resources=_resources("100m", "256Mi", "768Mi"))
    """Its schema (`mlflow db upgrade`)."""
    artifacts: str = Field("", pattern=r"^((s3|gs|abfss?|wasbs?|hdfs)://.+|/data/.+)?$")
    """Where artifacts go, for instance `s3://bucket/prefix`; empty: /data/artifacts, which needs `persistence`. Saying
    `/data/artifacts` without persistence is for a try-out: they die with the pod."""
    object_store: ObjectStore = ObjectStore()
    """The object store."""
    persistence: Persistence = Persistence(size="20Gi")
    """Artifacts on a volume, where there is no object store."""
    temporary_size: Quantity = "4Gi"
    """The most that may lie in /tmp: an upload is there before it is in the object store."""
    allowed_hosts: list[str] = []
    """More host names that MLflow answers to, for instance of an ingress; its own in the cluster are known."""
    workers: int = Field(1, ge=1)
    """Server processes; each takes about 400 MB."""


# --- crds, observability, umbrella ------------------------------------------------------------------------------------


class Crds(Values):
    """The custom resource definitions, apart: Helm never upgrades a chart's `crds` folder. They stay on uninstall."""

    enabled: bool = True
    """Whether the umbrella includes this chart."""
    global_: Global = Field(Global(), alias="global")
    """Shared by all charts; see the umbrella."""


class ServiceMonitors(Values):
    """ServiceMonitors of the Prometheus operator, one a service."""

    enabled: bool = True
    """False: none."""
    labels: Texts = {"release": "kube-prometheus-stack"}
    """Labels that Prometheus selects by; kube-prometheus-stack wants `release: <its release>`."""
    interval: str = Field("15s", pattern=r"^([0-9]+(ms|s|m|h))+$")
    """Between two scrapes."""
    timeout: str = Field("10s", pattern=r"^([0-9]+(ms|s|m|h))+$")
    """How long a scrape may take."""
    sample_limit: int = Field(20_000, ge=0)
    """A scrape with more samples fails, so that an unbounded label shows before it hurts."""


class Rules(Values):
    """PrometheusRules, one for each file in `files/rules`."""

    enabled: bool = True
    """False: none."""
    labels: Texts = {"release": "kube-prometheus-stack"}
    """Labels that Prometheus selects by."""
    runbook_base_url: Url = ""
    """Address under which people find the folder `docs/runbooks`, for the links of alerts: of the platform's
    repository, or of a copy. Empty: the path in the repository."""


class Dashboards(Values):
    """Grafana dashboards, a ConfigMap for each file in `files/dashboards`."""

    enabled: bool = True
    """False: none."""
    labels: Texts = {"grafana_dashboard": "1"}
    """Labels that Grafana's side container looks for."""
    annotations: Texts = {"grafana_folder": "Modelyard"}
    """Its folder, where the side container is told to look at it."""


class Observability(Values):
    """What Prometheus and Grafana need to know. Needs the Prometheus operator."""

    enabled: bool = True
    """Whether the umbrella includes this chart."""
    global_: Global = Field(Global(), alias="global")
    """Shared by all charts; see the umbrella."""
    name_override: Name = ""
    """Replaces the chart's part of all names."""
    fullname_override: Name = ""
    """Replaces all of the name."""
    common_labels: Texts = {}
    """Labels of every object."""
    service_monitors: ServiceMonitors = ServiceMonitors()
    """Scraping."""
    rules: Rules = Rules()
    """Alerts and recording rules."""
    dashboards: Dashboards = Dashboards()
    """Dashboards."""
    extra_objects: KubernetesList = []
    """More objects of the release; strings in them are rendered as templates."""


_OF_CHART = "Values of the chart of this name, which has its own schema."
Subchart = Annotated[dict[str, Any], Field(description=_OF_CHART, json_schema_extra={"x-chart": True})]


class Umbrella(Values):
    """The whole platform in one release."""

    global_: Global = Field(Global(), alias="global")
    """Shared by all charts."""
    crds: Subchart = {}
    registry: Subchart = {}
    training: Subchart = {}
    inference: Subchart = {}
    drift: Subchart = {}
    operator: Subchart = {}
    mlflow: Subchart = {}
    observability: Subchart = {"enabled": False}


_OF_JOBS = frozenset(
    {"launcher", "kubeconfig", "job_namespace", "job_image", "job_pull_policy", "job_pull_secrets", "job_secrets"}
    | {"job_service_account", "job_token_secret", "job_token_key", "job_labels", "job_node_selector", "job_tolerations"}
    | {"job_disk", "job_ttl_s", "job_start_patience_s", "job_command", "job_niceness"}
)
"""Derived from `jobs` and the platform; the last two are for jobs that are processes."""

CHARTS: Mapping[str, Chart] = {
    "registry": Chart(Registry, RegistrySettings),
    "training": Chart(Training, TrainingSettings, _OF_JOBS),
    "inference": Chart(
        Inference, InferenceSettings, frozenset({"runtime_socket", "runtime_pyfunc", "runtime_memory_bytes"})
    ),
    "drift": Chart(Drift, DriftSettings),
    "operator": Chart(Operator, OperatorSettings, frozenset({"kubeconfig", "namespace", "lease_name", "identity"})),
    "mlflow": Chart(Mlflow),
    "crds": Chart(Crds),
    "observability": Chart(Observability),
    "modelyard": Chart(Umbrella),
}
