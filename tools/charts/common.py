"""The values that several charts have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tools.charts.kinds import (
    Amounts,
    KubernetesList,
    KubernetesObject,
    Name,
    Quantity,
    SecretKey,
    SecretName,
    Texts,
    Url,
    Values,
)

__all__ = [
    "Auth",
    "AutoscaledService",
    "ClosedNetwork",
    "Database",
    "Global",
    "Image",
    "Migrations",
    "ObjectStore",
    "Persistence",
    "Probe",
    "Replicated",
    "Resources",
    "Routed",
    "Service",
    "ServiceAccount",
    "Shutdown",
    "Workload",
]

_CLUSTER_DNS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}


class Destination(Values):
    """Where traffic that leaves the platform may go."""

    ports: list[Annotated[int, Field(ge=1, le=65535)]]
    """TCP ports."""
    to: KubernetesList = []
    """NetworkPolicyPeers (podSelector, namespaceSelector, ipBlock). Empty: any address, on these ports only."""


class GlobalNetwork(Values):
    """What all network policies of the platform know about the cluster."""

    enabled: bool = True
    """Deny by default, both ways, and open the edges of the service graph. Needs a CNI that enforces NetworkPolicy."""
    dns: KubernetesList = [_CLUSTER_DNS]
    """Where cluster DNS is, as NetworkPolicyPeers; NodeLocal DNSCache needs an ipBlock of its address."""
    prometheus: KubernetesList = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    """Who may scrape /metrics, as NetworkPolicyPeers. Empty: nobody."""
    database: Destination = Destination(ports=[5432])
    """PostgreSQL."""
    kubernetes_api: Destination = Destination(ports=[443, 6443])
    """The API server; only training and the operator talk to it."""
    object_store: Destination = Destination(ports=[443])
    """S3 or what speaks like it; only MLflow talks to it."""
    tracing: Destination = Destination(ports=[4318])
    """The receiver of traces, open where `global.tracing.endpoint` is set."""


class Tracing(Values):
    """Where spans of our services and of training jobs go."""

    endpoint: Url = ""
    """Base URL of an OTLP/HTTP receiver, such as `http://otel-collector.monitoring:4318`; empty: no spans are made."""
    ratio: float = Field(1.0, ge=0, le=1)
    """Share of the traces that begin in the platform which are recorded; whoever calls with one has decided for it."""


class PodSecurity(Values):
    """The numbers that pods run as; everything else of the restricted level is fixed."""

    run_as_user: int = Field(10001, ge=1)
    """User of every process; never root."""
    run_as_group: int = Field(10001, ge=1)
    """Group of every process."""
    fs_group: int = Field(10001, ge=1)
    """Group that owns mounted volumes."""


class Global(Values):
    """Shared by all charts of the platform; set once under `global` of the umbrella."""

    platform: Name = ""
    """Prefix of all names and the label that ties the platform together; default: the release without the chart."""
    bind_address: Literal["0.0.0.0", "::"] = "0.0.0.0"  # noqa: S104  # pods are there to be reached
    """Where services listen in their pods; `::` where pods have IPv6 addresses."""
    image_registry: str = ""
    """Registry of every image, before a chart's own `image.registry`: one switch for a mirror or an air gap."""
    image_pull_secrets: list[SecretName] = []
    """Secrets with credentials of that registry; they must exist."""
    storage_class: str = ""
    """StorageClass of every volume claim that names none; empty: the cluster's default."""
    environment: str = Field("", pattern=r"^[A-Za-z0-9_.-]*$", max_length=63)
    """Which installation this is, such as `production`: part of every log line and trace."""
    tracing: Tracing = Tracing()
    """Traces."""
    pod_security: PodSecurity = PodSecurity()
    """Numeric user and groups of every pod, hook and job."""
    network_policy: GlobalNetwork = GlobalNetwork()
    """Network policies of the whole platform."""


class Image(Values):
    """Where an image comes from."""

    registry: str = ""
    """Registry, when `global.imageRegistry` is not set; empty: the container runtime's default."""
    repository: str
    """Repository."""
    tag: str = Field(
        "", pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", json_schema_extra={"not": {"const": "latest"}}
    )
    """Tag; empty: the chart's appVersion. `latest` is refused: nobody could say what runs."""
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Digest; wins over the tag."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When the kubelet pulls."""


class Resources(Values):
    """What a container asks for and may use at most."""

    requests: Amounts
    """What the scheduler sets aside."""
    limits: Amounts
    """What the kernel enforces. No cpu by default: throttling hurts latency and saves nothing that is asked for."""


class Probe(Values):
    """How often a probe asks, and after how many failures it acts."""

    period_seconds: int = Field(5, ge=1)
    """Seconds between two questions."""
    timeout_seconds: int = Field(3, ge=1)
    """Seconds an answer may take."""
    failure_threshold: int = Field(3, ge=1)
    """Failures in a row before it counts."""


class Probes(Values):
    """Three questions with three meanings."""

    startup: Probe = Probe(period_seconds=2, failure_threshold=60)
    """Has it begun? Until then the others wait; failing restarts the container."""
    readiness: Probe = Probe()
    """Can it do its job now, its own database included? Failing takes the pod out of the Service."""
    liveness: Probe = Probe(period_seconds=10, timeout_seconds=5)
    """Does the process answer at all? It never asks a dependency; failing restarts the container."""


class Shutdown(Values):
    """How a pod ends; terminationGracePeriodSeconds is their sum and a margin."""

    pre_stop_seconds: int = Field(5, ge=1, le=300)
    """Keep serving this long before SIGTERM, while endpoints and proxies take the pod out."""
    drain_seconds: int = Field(1, ge=0, le=600)
    """After SIGTERM: unready, and still serving."""
    grace_seconds: int = Field(20, ge=1, le=3600)
    """Then requests in flight may take this long."""


class ServiceAccount(Values):
    """The pod's identity."""

    create: bool = True
    """False: use an existing one, named below."""
    name: str = ""
    """Its name; empty: the workload's."""
    annotations: Texts = {}
    """Annotations, for cloud identities (IRSA, Workload Identity)."""


class ServicePort(Values):
    """The Service in front of the pods."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Its type; tokens guard every type."""
    annotations: Texts = {}
    """Annotations, for cloud load balancers."""


class Auth(Values):
    """Bearer tokens, from a Secret that exists; there is no way to run without."""

    existing_secret: SecretName = "modelyard-auth"  # noqa: S105  # a name
    """The Secret. Its file of accepted tokens holds one `name role sha256-hex` a line."""
    tokens_key: SecretKey = "tokens"
    """The key with the accepted tokens, hashed."""
    token_key: SecretKey
    """The key with this service's own token for what it asks of others."""


class Database(Values):
    """PostgreSQL, from outside the charts: one database and role a service."""

    existing_secret: SecretName = "modelyard-database"  # noqa: S105
    """The Secret that holds the connection URL."""
    url_key: SecretKey
    """The key with `postgresql://user:password@host:5432/database`."""


class Migrations(Values):
    """The job that brings the database's schema up to date before pods of a new release start."""

    enabled: bool = True
    """False: somebody else runs it; pods refuse to start on an older schema."""
    timeout_seconds: int = Field(600, ge=10)
    """After this long it has failed, and so has the install or upgrade."""
    retries: int = Field(3, ge=0, le=20)
    """Further tries, since a database may still be starting."""
    database: Database
    """Credentials of the migration, which may be a role with more rights than the service has."""
    service_account: ServiceAccount = ServiceAccount()
    """The job's own identity."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "256Mi"})
    """What the job asks for."""


class Persistence(Values):
    """Whether /data outlives the pod: a claim per pod of a StatefulSet, else an emptyDir of a Deployment."""

    enabled: bool = False
    """True: a StatefulSet with a claim per pod."""
    size: Quantity = "10Gi"
    """Size of a claim, or the limit of the emptyDir."""
    storage_class: str = ""
    """StorageClass; empty: `global.storageClass`."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod"] = "ReadWriteOnce"
    """Access mode of a claim."""
    when_deleted: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the claims on uninstall. Scaling in always keeps them: what is unsent is sent later."""


class Budget(Values):
    """PodDisruptionBudget; rendered only where there are two replicas or more."""

    enabled: bool = True
    """False: evictions are not held back."""
    max_unavailable: int = Field(1, ge=1)
    """Pods that a drain may take at once. A pod that is not ready may always be evicted."""


class Spread(Values):
    """How replicas spread over zones and nodes."""

    enabled: bool = True
    """Spread over `topology.kubernetes.io/zone` and `kubernetes.io/hostname`."""
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"
    """What the scheduler does when it cannot."""


class NetworkPolicy(Values):
    """This service's own edges, beside those of the service graph."""

    clients: KubernetesList = []
    """Who else may call the service, as NetworkPolicyPeers: the ingress controller's namespace, an application's."""
    extra_ingress: KubernetesList = []
    """More ingress rules."""
    extra_egress: KubernetesList = []
    """More egress rules; needed when a peer's URL leads out of the namespace."""


class ClosedNetwork(Values):
    """Edges of what nobody calls."""

    extra_egress: KubernetesList = []
    """More egress rules."""


class ObjectStore(Values):
    """Credentials and address of the object store."""

    existing_secret: str = Field("", pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    """A Secret whose keys become environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY); empty: the
    ServiceAccount's cloud identity is used."""
    endpoint_url: Url = ""
    """Address of an S3-compatible store; empty: AWS."""


class Ingress(Values):
    """A networking.k8s.io/v1 Ingress."""

    enabled: bool = False
    """True: made; `networkPolicy.clients` must then let its controller in."""
    class_name: str = ""
    """IngressClass."""
    host: str = ""
    """Host name; needed when enabled."""
    path: str = Field("/", pattern=r"^/")
    """Path prefix."""
    annotations: Texts = {}
    """Annotations of the controller."""
    tls_secret: str = ""
    """Secret with the certificate; empty: no TLS here."""


class HttpRoute(Values):
    """A Gateway API HTTPRoute, every default written out so that GitOps tools see no drift."""

    enabled: bool = False
    """True: made; `networkPolicy.clients` must then let the gateway in."""
    parent_refs: KubernetesList = []
    """The gateways; needed when enabled."""
    hostnames: list[str] = []
    """Host names."""
    path: str = Field("/", pattern=r"^/")
    """Path prefix."""
    annotations: Texts = {}
    """Annotations."""


class Keda(Values):
    """KEDA in place of the plain HorizontalPodAutoscaler."""

    enabled: bool = False
    """True: a ScaledObject; needs KEDA in the cluster."""
    triggers: KubernetesList = []
    """Triggers beside the one for cpu."""
    cooldown_seconds: int = Field(300, ge=0)
    """Seconds before it scales in."""


class Autoscaling(Values):
    """Replicas that follow the load; `replicas` is then left out, so that nothing fights over it."""

    enabled: bool = False
    """True: an autoscaler owns the number of replicas."""
    min_replicas: int = Field(2, ge=1)
    """Never fewer."""
    max_replicas: int = Field(8, ge=1)
    """Never more."""
    target_cpu_percent: int = Field(70, ge=1, le=1000)
    """Average use of the cpu request that is aimed at."""
    behavior: KubernetesObject = {}
    """HorizontalPodAutoscaler behaviour; empty: Kubernetes' default."""
    keda: Keda = Keda()
    """KEDA."""


class Workload(Values):
    """Any chart that runs pods."""

    enabled: bool = True
    """Whether the umbrella includes this chart."""
    global_: Annotated[Global, Field(alias="global")] = Global()
    """Shared by all charts; see the umbrella."""
    name_override: Name = ""
    """Replaces the chart's part of all names; peers then need its URL."""
    fullname_override: Name = ""
    """Replaces all of the name; peers then need its URL."""
    common_labels: Texts = {}
    """Labels of every object."""
    image: Image
    """The image."""
    replicas: int = Field(1, ge=1)
    """Pods, where no autoscaler decides."""
    resources: Resources
    """What the container asks for and may use."""
    probes: Probes = Probes()
    """Startup, readiness and liveness."""
    shutdown: Shutdown = Shutdown()
    """How pods end."""
    persistence: Persistence = Persistence()
    """Whether /data outlives the pod."""
    temporary_size: Quantity = "1Gi"
    """The most that may lie in /tmp; more ends the pod."""
    service_account: ServiceAccount = ServiceAccount()
    """The pods' identity."""
    service: ServicePort = ServicePort()
    """The Service."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Edges beside the service graph."""
    pod_labels: Texts = {}
    """More labels of the pods."""
    pod_annotations: Texts = {}
    """More annotations of the pods."""
    node_selector: Texts = {}
    """Labels that a node must have."""
    tolerations: KubernetesList = []
    """Taints that are tolerated."""
    affinity: KubernetesObject = {}
    """Affinity rules."""
    priority_class_name: str = ""
    """PriorityClass."""
    extra_env: KubernetesList = []
    """More environment variables (EnvVar)."""
    extra_env_from: KubernetesList = []
    """More sources of environment variables (EnvFromSource)."""
    extra_volumes: KubernetesList = []
    """More volumes."""
    extra_volume_mounts: KubernetesList = []
    """More mounts of the service's container."""
    init_containers: KubernetesList = []
    """Init containers; the namespace's restricted level judges them."""
    extra_containers: KubernetesList = []
    """Side containers; the namespace's restricted level judges them."""
    extra_objects: KubernetesList = []
    """More objects of the release; strings in them are rendered as templates."""


class Service(Workload):
    """One of our services: settings, tokens."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much the log says."""
    auth: Auth
    """Who may call, and as whom it calls."""
    settings: KubernetesObject = {}
    """Settings of the service, camelCase; each becomes one environment variable. Defaults are the service's own."""


class Routed(Values):
    """What may be reached from outside the cluster."""

    ingress: Ingress = Ingress()
    """Ingress."""
    http_route: HttpRoute = HttpRoute()
    """Gateway API."""


class Replicated(Values):
    """What matters where there may be two pods or more."""

    pod_disruption_budget: Budget = Budget()
    """Evictions."""
    topology_spread: Spread = Spread()
    """Zones and nodes."""


class AutoscaledService(Routed, Replicated, Service):
    """A service that may have many replicas."""

    autoscaling: Autoscaling = Autoscaling()
    """Replicas that follow the load."""
