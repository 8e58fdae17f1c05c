"""docker-compose.yml holds to the rules of the house: pinned, restricted, healthy, and no secret in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.compose.definition import (
    BESIDE,
    EXAMPLE,
    FILE,
    OURS,
    ROOT,
    Definition,
    definition,
    env_file,
    once,
    services,
    variables,
)
from tools.charts.build import HELM
from tools.compose.secrets import SERVICES
from tools.images.catalog import IMAGES, REPOSITORY, TRAINING_WITH_TRAINER, USER

ALL = services()
LASTING = [name for name, service in ALL.items() if not once(service)]
ONCE = [name for name, service in ALL.items() if once(service)]
FOREIGN = {"POSTGRES", "OBJECT_STORE", "MLFLOW", "PROMETHEUS", "ALERTMANAGER", "GRAFANA"}
WITHOUT_KNOWN_DIGEST = {"MLFLOW"}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*(@sha256:[0-9a-f]{64})?")


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_file_is_valid_by_the_schema_of_the_compose_specification() -> None:
    done = checked(FILE)

    assert done.returncode == 0, done.stdout


def test_the_schema_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = definition()
    wrong["services"]["registry"]["deppends_on"] = []
    path = tmp_path / "docker-compose.yml"
    path.write_text(yaml.safe_dump(wrong))

    done = checked(path)

    assert done.returncode == 1
    assert "deppends_on" in done.stdout


def test_the_platform_is_complete_and_the_operator_stays_in_kubernetes() -> None:
    others = {"postgres", "object-store", "mlflow", "prometheus", "alertmanager", "grafana"}

    assert set(LASTING) == {*OURS, *BESIDE, *others}
    assert set(OURS) == set(SERVICES)


@pytest.mark.parametrize("name", ALL)
def test_every_container_is_restricted(name: str) -> None:
    service = ALL[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].partition(":")[0]) > 0
    assert any(mount.startswith("/tmp:size=") for mount in service["tmpfs"])
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    assert service["mem_limit"]
    assert service["pids_limit"]


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_restarted_and_says_whether_it_is_healthy(name: str) -> None:
    service = ALL[name]

    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD", "images have no shell"
    assert {"interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


@pytest.mark.parametrize("name", ALL)
def test_a_service_waits_for_health_or_for_an_end_and_for_nothing_else(name: str) -> None:
    for needed, wait in ALL[name].get("depends_on", {}).items():
        assert wait["condition"] == ("service_completed_successfully" if needed in ONCE else "service_healthy")


@pytest.mark.parametrize("name", [*OURS, "mlflow"])
def test_nothing_starts_before_its_own_database_is_migrated(name: str) -> None:
    service = ALL[name]

    if not service.get("env_file"):
        assert name == "inference", "it has no database"
        return
    assert service["depends_on"][f"{name}-migration"]["condition"] == "service_completed_successfully"
    migration = ALL[f"{name}-migration"]
    assert migration["image"] == service["image"]
    assert set(migration["env_file"]) <= set(service["env_file"])
    assert migration["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_what_does_its_work_once_is_waited_for() -> None:
    awaited = {needed for service in ALL.values() for needed in service.get("depends_on", {})}

    assert set(ONCE) <= awaited


def test_images_of_others_are_pinned_by_tag_and_where_it_is_known_by_digest() -> None:
    images = {name.removesuffix("_IMAGE"): value for name, value in variables().items() if name.endswith("_IMAGE")}
    images.pop("PYTHON")

    assert set(images) == FOREIGN
    for name, image in images.items():
        assert PINNED.fullmatch(image), image
        assert ("@sha256:" in image) != (name in WITHOUT_KNOWN_DIGEST), image


def test_a_floating_tag_is_not_pinned() -> None:
    assert not any(PINNED.fullmatch(f"docker.io/library/postgres{tag}") for tag in ("", ":latest", ":18", "@sha256:0"))


def test_mlflow_is_the_one_that_the_chart_installs() -> None:
    image = yaml.safe_load((HELM / "mlflow" / "values.yaml").read_text())["image"]

    assert variables()["MLFLOW_IMAGE"] == f"{image['registry']}/{image['repository']}:{image['tag']}"


@pytest.mark.parametrize("name", [*OURS, *BESIDE])
def test_our_images_are_those_of_the_catalogue_in_this_version(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = TRAINING_WITH_TRAINER if name == "training" else IMAGES[name]
    arguments = ALL[name]["build"]["args"]

    assert ALL[name]["image"] == image.tag(version)
    assert ALL[name]["user"] == f"{USER}:{USER}"
    assert (arguments["PACKAGE"], arguments.get("WITH")) == (image.package, image.beside)
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(arguments) <= declared


def test_ports_are_open_on_loopback_alone_and_neither_mlflow_nor_a_store_has_one() -> None:
    published = {name: service["ports"] for name, service in ALL.items() if "ports" in service}

    assert set(published) == {*OURS, "prometheus", "alertmanager", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    hosts = [port.split(":")[1] for ports in published.values() for port in ports]
    assert len(set(hosts)) == len(hosts)


def test_stores_are_reached_by_those_who_use_them_and_have_no_way_out() -> None:
    networks = definition()["networks"]
    members = {net: {name for name, one in ALL.items() if net in one["networks"]} for net in networks}

    assert {net for net, options in networks.items() if options.get("internal")} == {
        "database",
        "objects",
        "tracking",
        "isolated",
    }
    lasting = {net: names - set(ONCE) for net, names in members.items()}
    assert lasting["database"] == {"postgres", "registry", "training", "drift", "mlflow"}
    assert lasting["objects"] == {"object-store", "mlflow"}
    assert lasting["tracking"] == {"mlflow", "registry", "training"}
    assert lasting["isolated"] == set(BESIDE), "nobody else: it has a folder to be reached by"
    assert lasting["platform"] == {*OURS, "prometheus"}
    assert all(service["networks"] for service in ALL.values())


def test_every_volume_secret_and_network_is_declared_and_used() -> None:
    whole = definition()
    mounts = [volume.split(":") for service in ALL.values() for volume in service.get("volumes", [])]

    assert {source for source, *_ in mounts if not source.startswith(".")} == set(whole["volumes"])
    assert {secret for service in ALL.values() for secret in service.get("secrets", [])} == set(whole["secrets"])
    assert {net for service in ALL.values() for net in service["networks"]} == set(whole["networks"])


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name]["image"].startswith(f"{REPOSITORY}/")])
def test_no_container_of_ours_gets_a_volume_without_a_name(name: str) -> None:
    """Compose loses sight of such a volume when it makes the container anew, and nobody removes it."""
    targets = [mount.split(":")[1] for mount in ALL[name].get("volumes", [])]
    targets += [mount.split(":")[0] for mount in ALL[name]["tmpfs"]]

    assert "VOLUME /data" in (ROOT / "Dockerfile").read_text()
    assert targets.count("/data") == 1


def test_what_is_mounted_from_the_checkout_is_there_and_read_only() -> None:
    mounts = [volume.split(":") for service in ALL.values() for volume in service.get("volumes", [])]
    ours = [mount for mount in mounts if mount[0].startswith(".")]

    assert ours
    for source, _, *options in ours:
        assert (ROOT / source).exists(), source
        assert options == ["ro"], source


def test_no_secret_stands_in_the_file() -> None:
    secret_names = re.compile(r"PASSWORD|SECRET(?!S_DIR)|ACCESS_KEY|DATABASE_URL|BACKEND_STORE_URI")
    for name, service in ALL.items():
        assert [one for one in service.get("environment", {}) if secret_names.search(one)] == [], name
    assert not re.search(r"://[^/\s]*:[^/\s]*@", FILE.read_text())
    assert not [name for name in variables() if secret_names.search(name)]


def test_the_example_describes_every_variable_with_its_default() -> None:
    assert env_file(EXAMPLE) == variables() | {"COMPOSE_PROJECT_NAME": "modelyard"}
    described = False
    for line in EXAMPLE.read_text().splitlines():
        assert described or line.startswith("#") or not line, f"say what this is for: {line}"
        described = bool(line)


def test_no_variable_is_read_in_another_way() -> None:
    """A variable without a default would be empty, with a warning that nobody reads."""
    text = FILE.read_text()

    assert len(re.findall(r"(?<!\$)\$(?![$])", text.replace("$$", ""))) == len(re.findall(r"\$\{\w+:-", text))


def scraped() -> dict[str, Definition]:
    jobs = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())["scrape_configs"]
    return {job["job_name"]: job["static_configs"][0] for job in jobs}


@pytest.mark.parametrize("name", OURS)
def test_prometheus_scrapes_every_service_where_it_listens(name: str) -> None:
    port = ALL[name]["ports"][0].rpartition(":")[2]

    assert scraped()[f"modelyard-{name}"] == {"targets": [f"{name}:{port}"], "labels": {"namespace": "compose"}}


def test_prometheus_alertmanager_and_grafana_find_each_other() -> None:
    settings = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())
    source = yaml.safe_load((ROOT / "deploy/compose/grafana/datasources/prometheus.yaml").read_text())

    assert settings["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert set(ALL["grafana"]["networks"]) & set(ALL["prometheus"]["networks"]) & set(ALL["alertmanager"]["networks"])


def test_rules_and_dashboards_are_those_of_the_chart() -> None:
    settings = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())
    provider = yaml.safe_load((ROOT / "deploy/compose/grafana/dashboards/modelyard.yaml").read_text())["providers"][0]
    mount = "./deploy/helm/observability:/etc/modelyard/observability:ro"

    assert mount in ALL["prometheus"]["volumes"]
    assert mount in ALL["grafana"]["volumes"]
    assert settings["rule_files"] == ["/etc/modelyard/observability/files/rules/*.yaml"]
    assert provider["options"]["path"] == "/etc/modelyard/observability/files/dashboards"
