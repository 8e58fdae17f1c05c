"""What every pod of every rendering keeps to: the restricted level, labels, probes, ends, references, rights."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
from modelyard_cli.offline.job import JobOrder, job_manifest
from modelyard_inference.settings import InferenceSettings

from tests.chart.jobs import trainer_job
from tests.chart.rendering import (
    DIGEST,
    FEATURES,
    SERVICES,
    Document,
    Helm,
    PodSpec,
    environment,
    merged,
    of_kind,
    pods,
    profile,
    umbrella,
)
from tools.images.catalog import IMAGES, USER

LABELS = {
    *(f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "version", "part-of", "managed-by")),
    "helm.sh/chart",
}
HARMLESS_VOLUMES = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
# Made by whoever installs: see the README of deploy/helm.
EXISTING_SECRETS = {
    "modelyard-auth": {"tokens", "client", "trainer", "registry", "training", "inference", "drift", "operator"},
    "modelyard-database": {"registry", "training", "drift", "mlflow"},
}


def test_every_pod_keeps_to_the_restricted_level(helm: Helm, combination: tuple[str, str]) -> None:
    found = pods(umbrella(helm, *combination))

    assert len(found) >= 7
    for pod in found:
        assert _restricted(pod) == [], f"{pod}"


def _restricted(pod: PodSpec) -> list[str]:
    """Return what the Pod Security Standards' restricted level, and our own read-only root, have against a pod."""
    spec, broken = pod.spec, []
    security = spec.get("securityContext", {})
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        broken.append("host namespaces")
    if not security.get("runAsNonRoot") or not security.get("runAsUser", 0) > 0:
        broken.append("runs as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        broken.append("seccomp")
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= {
            "configMap",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        }:
            broken.append(f"volume {volume['name']}")
        if (
            "emptyDir" in volume
            and volume["name"] in {"tmp", "data", "runtime", "runtime-tmp"}
            and "sizeLimit" not in volume["emptyDir"]
        ):
            broken.append(f"volume {volume['name']} has no bound")
    for container in pod.containers:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            broken.append("privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            broken.append("capabilities")
        if own.get("readOnlyRootFilesystem") is not True or own.get("runAsNonRoot") is False:
            broken.append("root file system")
        if any("hostPort" in port for port in container.get("ports", [])):
            broken.append("host port")
    return broken


def test_the_jobs_that_training_makes_keep_to_it_too_and_find_what_they_name(
    helm: Helm, combination: tuple[str, str]
) -> None:
    documents = umbrella(helm, *combination)
    job = {"metadata": {"name": "job"}, "kind": "Job", **trainer_job(documents)}

    [pod] = pods([job])

    assert _restricted(pod) == []
    assert pod.spec["automountServiceAccountToken"] is False
    accounts = {account["metadata"]["name"] for account in of_kind(documents, "ServiceAccount")}
    assert pod.spec["serviceAccountName"] in accounts
    [token] = [volume["secret"] for volume in pod.spec["volumes"] if "secret" in volume]
    assert token["secretName"] in EXISTING_SECRETS
    assert [item["key"] for item in token["items"]] == ["trainer"]
    if combination[1] == "pinned":
        assert pod.spec["containers"][0]["image"].startswith("mirror.example.org/x/modelyard/trainer:")
        assert pod.spec["imagePullSecrets"] == [{"name": "pull"}]


def scoring_job(**changes: object) -> Document:
    """Return the Job that ``modelyard predict --job-manifest`` prints."""
    order = {
        "model": "electricity",
        "arguments": ["predict", "electricity", "--shards=8"],
        "shards": 8,
        "parallelism": 3,
        "image": "modelyard/cli:0.1.0",
        "claim": "files",
        "mount": "/data",
        "inference_url": "http://modelyard-inference:8080",
        "token_secret": ("modelyard-auth", "admin"),
    }
    return job_manifest(JobOrder(**{**order, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("token", [("modelyard-auth", "admin"), None], ids=["token", "no token"])
def test_the_jobs_that_score_files_are_objects_of_kubernetes_and_keep_to_it_too(token: tuple[str, str] | None) -> None:
    job = scoring_job(token_secret=token)

    kubernetes_validate.validate(job, "1.35", strict=True)
    [pod] = pods([job])

    assert _restricted(pod) == []
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.containers[0]["resources"]["limits"].keys() == {"cpu", "memory"}
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 8, 3)
    assert ("MODELYARD_TOKEN_FILE" in environment(pod.containers[0])) == (token is not None)
    mounted = {mount["name"] for mount in pod.containers[0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod.spec["volumes"]}


def test_another_order_is_another_job_and_the_same_is_the_same() -> None:
    names = [
        scoring_job(**changes)["metadata"]["name"]
        for changes in ({}, {}, {"claim": "others"}, {"arguments": ["predict", "electricity", "--shards=9"]})
    ]

    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert len(scoring_job(model="m" * 63)["metadata"]["name"]) <= 63


def test_every_object_has_the_recommended_labels(helm: Helm, combination: tuple[str, str]) -> None:
    for document in umbrella(helm, *combination):
        labels = document["metadata"].get("labels", {})
        if document["kind"] == "CustomResourceDefinition" or document["metadata"]["name"].endswith("-more"):
            continue
        assert LABELS - labels.keys() == set(), document["metadata"]["name"]
        assert labels["modelyard.dev/platform"] == ("grid" if combination[1] == "ours" else "modelyard")


def test_every_selector_selects_exactly_its_own_pods(helm: Helm, combination: tuple[str, str]) -> None:
    documents = umbrella(helm, *combination)
    found = pods(documents)

    for owner in of_kind(documents, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        wanted = owner["spec"]["selector"]["matchLabels"].items()
        selected = {pod.component for pod in found if wanted <= pod.labels.items()}
        assert selected == {owner["metadata"]["labels"]["app.kubernetes.io/component"]}
    for service in of_kind(documents, "Service"):
        [pod] = [one for one in found if service["spec"]["selector"].items() <= one.labels.items()]
        named = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0]["ports"]}
        assert [named[port["targetPort"]] for port in service["spec"]["ports"]] == [
            port["port"] for port in service["spec"]["ports"]
        ]


def test_pods_are_spread_among_their_own_kind(helm: Helm, combination: tuple[str, str]) -> None:
    found = pods(umbrella(helm, *combination))
    spread = [pod for pod in found if "topologySpreadConstraints" in pod.spec]

    assert {pod.component for pod in spread} == set(SERVICES) - {"training"}, "training has one pod"
    for pod in spread:
        for constraint in pod.spec["topologySpreadConstraints"]:
            wanted = constraint["labelSelector"]["matchLabels"].items()
            assert {one.component for one in found if wanted <= one.labels.items()} == {pod.component}


def test_containers_of_whoever_installs_run_beside_ours(helm: Helm) -> None:
    found = {pod.component: pod.spec for pod in pods(umbrella(helm, "small", "hatches"))}

    for component in SERVICES:
        spec = found[component]
        ours = ["runtime"] if component == "inference" else []
        assert [one["name"] for one in spec["initContainers"]] == ["before", *ours]
        assert [one["name"] for one in spec["containers"]] == [component, "sidecar"]


def test_selectors_hold_nothing_that_an_upgrade_changes(helm: Helm) -> None:
    documents = umbrella(helm, "ha", "hatches")

    for owner in of_kind(documents, "Deployment", "StatefulSet"):
        keys = set(owner["spec"]["selector"]["matchLabels"])
        assert keys == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}


def test_every_reference_resolves_or_is_known_to_be_made_by_the_user(helm: Helm, combination: tuple[str, str]) -> None:
    documents = umbrella(helm, *combination)
    made = {(document["kind"], document["metadata"]["name"]) for document in documents}

    for pod in pods(documents):
        for kind, name, key in _references(pod):
            if (kind, name) in made:
                [target] = [one for one in of_kind(documents, kind) if one["metadata"]["name"] == name]
                assert key is None or key in target["data"]
            elif kind == "Secret":
                assert key in EXISTING_SECRETS[name], f"{pod} wants {name}/{key}"
            else:
                assert (kind, name) == ("ServiceAccount", "ours"), f"{pod} wants {kind}/{name}"


def _references(pod: PodSpec) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    if "serviceAccountName" in pod.spec:
        found.append(("ServiceAccount", pod.spec["serviceAccountName"], None))
    for volume in pod.spec.get("volumes", []):
        if "configMap" in volume:
            found.append(("ConfigMap", volume["configMap"]["name"], None))
        if "secret" in volume:
            found += [("Secret", volume["secret"]["secretName"], item["key"]) for item in volume["secret"]["items"]]
    for container in pod.containers:
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                reference = entry["valueFrom"]["secretKeyRef"]
                found.append(("Secret", reference["name"], reference["key"]))
    return found


def test_every_mount_has_its_volume_and_a_writable_place_for_temporary_files(
    helm: Helm, combination: tuple[str, str]
) -> None:
    for pod in pods(umbrella(helm, *combination)):
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        if pod.owner["kind"] == "StatefulSet":
            volumes |= {claim["metadata"]["name"] for claim in pod.owner["spec"]["volumeClaimTemplates"]}
        for container in pod.containers:
            mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
            assert mounts.keys() <= volumes
            if pod.component != "round-trip":
                assert mounts["runtime-tmp" if container["name"] == "runtime" else "tmp"] == "/tmp"


def test_the_three_probes_ask_three_things(helm: Helm) -> None:
    for pod in pods(umbrella(helm, "small", "plain")):
        if pod.owner["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        [container] = pod.spec["containers"]
        asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        if pod.component == "mlflow":
            assert asked["readiness"] != asked["liveness"]
        else:
            assert asked == {"startup": "/health/startup", "readiness": "/health/ready", "liveness": "/health/live"}


def test_a_pod_has_time_for_every_stage_of_its_end(helm: Helm, combination: tuple[str, str]) -> None:
    for pod in pods(umbrella(helm, *combination)):
        container = pod.spec["containers"][0]
        if "lifecycle" not in container:
            continue
        told = {entry["name"].rpartition("MODELYARD_")[2]: entry.get("value") for entry in container["env"]}
        stages = [float(value) for name, value in told.items() if re.search(r"_(DRAIN|GRACE|FLUSH)_S$", name)]
        before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod.component == "mlflow" or len(stages) == (3 if pod.component == "inference" else 2)
        assert pod.spec["terminationGracePeriodSeconds"] >= before_s + sum(stages) + 10


def test_budgets_are_there_where_there_are_two_pods_and_let_broken_ones_go(
    helm: Helm, combination: tuple[str, str]
) -> None:
    documents = umbrella(helm, *combination)
    budgets = {budget["metadata"]["name"]: budget["spec"] for budget in of_kind(documents, "PodDisruptionBudget")}
    fewest = {
        owner["metadata"]["name"]: owner["spec"].get("replicas")
        for owner in of_kind(documents, "Deployment", "StatefulSet")
    }
    scalers = of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject")
    for scaler in scalers:
        spec = scaler["spec"]
        assert fewest[spec["scaleTargetRef"]["name"]] is None, "an autoscaler and the chart would fight"
        fewest[spec["scaleTargetRef"]["name"]] = spec.get("minReplicas") or spec["minReplicaCount"]

    assert budgets.keys() == {name for name, least in fewest.items() if least >= 2}
    for name, budget in budgets.items():
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["maxUnavailable"] < fewest[name], "a drain could take all pods"


def test_images_are_never_latest_and_a_digest_wins(helm: Helm) -> None:
    plain = {container["image"] for pod in pods(umbrella(helm, "small", "plain")) for container in pod.containers}
    pinned = {container["image"] for pod in pods(umbrella(helm, "small", "pinned")) for container in pod.containers}

    assert all(re.fullmatch(r"[^:]+:v?[0-9][^:]*", image) for image in plain), plain
    assert {image.rpartition("@")[2] for image in pinned} == {DIGEST}
    assert all(image.startswith("mirror.example.org/x/") for image in pinned)


def test_charts_run_the_images_that_are_built_as_they_are_built(helm: Helm) -> None:
    documents = umbrella(helm, "small", "plain")
    found = {pod.component: pod for pod in pods(documents)}

    for package, image in IMAGES.items():
        if image.port is None:
            continue
        [container] = found[package].spec["containers"]
        assert container["image"].rpartition(":")[0] == image.tag().rpartition(":")[0]
        assert container["ports"][0]["containerPort"] == image.port
        assert "command" not in container, "the image's own entry point serves"
    [trainer] = trainer_job(documents)["spec"]["template"]["spec"]["containers"]
    assert trainer["image"].rpartition(":")[0] == IMAGES["trainer"].tag().rpartition(":")[0]
    assert {pod.spec["securityContext"]["runAsUser"] for pod in found.values()} == {USER}


def test_the_ci_profile_asks_for_little(helm: Helm) -> None:
    total = 0.0
    for document in umbrella(helm, "ci", "plain"):
        for pod in pods([document]):
            cpus = [container["resources"]["requests"]["cpu"] for container in pod.containers]
            total += document["spec"].get("replicas", 1) * sum(_cores(cpu) for cpu in cpus)

    assert 0 < total <= 1.2


def _cores(cpu: str) -> float:
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


def test_what_an_upgrade_must_not_lose_lies_on_volumes_in_every_profile(
    helm: Helm, combination: tuple[str, str]
) -> None:
    documents = umbrella(helm, *combination)
    kinds = {
        owner["metadata"]["labels"]["app.kubernetes.io/component"]: owner["kind"]
        for owner in of_kind(documents, "Deployment", "StatefulSet")
    }
    [pod] = [pod for pod in pods(documents) if pod.component == "mlflow"]

    assert kinds["training"] == "StatefulSet", "datasets"
    artifacts = environment(pod.spec["containers"][0])["MLFLOW_ARTIFACTS_DESTINATION"]
    assert kinds["mlflow"] == "StatefulSet" or artifacts.startswith("s3://"), "bundles"


def test_the_spool_fits_into_the_room_that_it_has(helm: Helm, combination: tuple[str, str]) -> None:
    [pod] = [pod for pod in pods(umbrella(helm, *combination)) if pod.component == "inference"]
    told = environment(pod.spec["containers"][0])
    most = int(
        told.get("MODELYARD_INFERENCE_SPOOL_MAX_BYTES", InferenceSettings.model_fields["spool_max_bytes"].default)
    )
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    if "data" in volumes:
        room = volumes["data"]["emptyDir"]["sizeLimit"]
    else:
        room = pod.owner["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]

    # As much again for bundles.
    assert 2 * most <= int(room.removesuffix("Gi")) * 2**30


def test_the_ha_profile_keeps_spools_and_has_no_lonely_pod_that_serves(helm: Helm) -> None:
    documents = umbrella(helm, "ha", "plain")
    persistent = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in of_kind(documents, "StatefulSet")}
    lonely = {
        owner["metadata"]["labels"]["app.kubernetes.io/component"]
        for owner in of_kind(documents, "Deployment", "StatefulSet")
        if owner["spec"].get("replicas") == 1
    }

    assert {"inference", "registry", "training"} <= persistent
    # Training's datasets lie on one volume; no prediction asks it.
    assert lonely == {"training"}


def test_migrations_come_before_pods_with_an_identity_of_their_own(helm: Helm) -> None:
    documents = umbrella(helm, "small", "plain")
    jobs = of_kind(documents, "Job")

    assert {job["metadata"]["name"] for job in jobs} == {
        f"modelyard-{name}-migration" for name in ("registry", "training", "drift", "mlflow")
    }
    for job in jobs:
        name = job["metadata"]["name"]
        needs = [one for one in documents if one["metadata"]["name"] == name and one is not job]
        assert {one["kind"] for one in needs} == {"ServiceAccount", "NetworkPolicy"}
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert job["spec"]["activeDeadlineSeconds"] > 0
        for one in needs:
            earlier = int(one["metadata"]["annotations"]["helm.sh/hook-weight"])
            assert earlier < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_a_chart_never_mixes_hooks_of_helm_and_argo_cd_that_are_needed_at_install(helm: Helm) -> None:
    # Argo CD ignores all of a chart's Helm hooks when it has one of Argo's own.
    documents = umbrella(helm, "small", "ours")
    for chart in SERVICES:
        own = [one["metadata"] for one in documents if _chart_of(one) == chart]
        annotations = [metadata.get("annotations", {}) for metadata in own]
        if any("argocd.argoproj.io/hook" in one for one in annotations):
            assert {one["helm.sh/hook"] for one in annotations if "helm.sh/hook" in one} == {"test"}


def _chart_of(document: Document) -> str:
    chart: str = document["metadata"]["labels"].get("helm.sh/chart", "")
    return chart.rpartition("-")[0]


def test_own_accounts_and_migrations_that_are_off_leave_nothing_behind(helm: Helm) -> None:
    documents = umbrella(helm, "small", "ours")

    accounts = {account["metadata"]["name"] for account in of_kind(documents, "ServiceAccount")}
    assert accounts == {"grid-operator", "grid-mlflow", "grid-mlflow-migration", "grid-trainer"}
    assert {job["metadata"]["name"] for job in of_kind(documents, "Job")} == {
        "grid-mlflow-migration",
        "grid-inference-round-trip",
    }


def test_claims_follow_the_storage_class_of_the_platform_unless_a_chart_has_its_own(helm: Helm) -> None:
    values = merged(profile("ha"), FEATURES["pinned"], {"inference": {"persistence": {"storageClass": "nvme"}}})

    classes = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: claim["spec"]["storageClassName"]
        for one in of_kind(helm.render("modelyard", values), "StatefulSet")
        for claim in one["spec"]["volumeClaimTemplates"]
    }

    assert classes == {"inference": "nvme", "registry": "fast", "training": "fast"}
