"""Settings are one contract: what a chart tells a service is something the service knows, and all that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from modelyard_common.settings import ServiceSettings
from pydantic import ValidationError

from tests.chart.rendering import Helm, environment, merged, of_kind, pods, profile, umbrella
from tools.charts.catalog import CHARTS
from tools.charts.write import CHART_OWNED, schema_of

OURS = {name: chart.settings for name, chart in CHARTS.items() if chart.settings is not None}
MIGRATED = ("registry", "training", "drift")
# Whom each service asks; an address that is not told would be the one of a laptop.
PEERS = {
    "registry": {"mlflow", "drift"},
    "training": {"registry", "drift", "mlflow", "training"},
    "inference": {"registry", "drift"},
    "drift": {"registry", "training"},
    "operator": {"registry", "training", "drift", "inference"},
}
# What is read beside the options of MLflow's server and its own variables.
OF_LIBRARIES = {"HOME", "TZ"}


def told(helm: Helm, combination: tuple[str, str], component: str) -> dict[str, str]:
    """Return the environment of the first container of a component."""
    [pod] = [pod for pod in pods(umbrella(helm, *combination)) if pod.component == component]
    return environment(pod.spec["containers"][0])


def settings_in(service: str, variables: Mapping[str, str], patch: pytest.MonkeyPatch) -> ServiceSettings:
    """Return the settings that a service has with such an environment."""
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, "postgresql://u:p@db:5432/x" if value.startswith("secret:") else value)
    return OURS[service]()


def known_to(service: str) -> set[str]:
    return {f"MODELYARD_{service.upper()}_{field.upper()}" for field in OURS[service].model_fields}


def strange_to(service: str, variables: Mapping[str, str]) -> set[str]:
    """Return the variables that look like settings and are none of this service."""
    return {name for name in variables if name.startswith("MODELYARD")} - known_to(service)


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_of_its_service_and_a_valid_one(
    helm: Helm, combination: tuple[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = told(helm, combination, service)

    assert strange_to(service, variables) == set()
    settings_in(service, variables, monkeypatch)


def test_a_misspelt_variable_is_found(helm: Helm) -> None:
    misspelt = {"registry": {"extraEnv": [{"name": "MODELYARD_REGISTRY_PROT", "value": "80"}]}}
    documents = helm.render("modelyard", merged(profile("small"), misspelt))
    [pod] = [pod for pod in pods(documents) if pod.component == "registry"]

    assert strange_to("registry", environment(pod.spec["containers"][0])) == {"MODELYARD_REGISTRY_PROT"}


@pytest.mark.parametrize("service", OURS)
def test_a_service_is_told_all_that_it_needs(
    helm: Helm, combination: tuple[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = umbrella(helm, *combination)
    variables = told(helm, combination, service)

    settings = settings_in(service, variables, monkeypatch)

    needed = {"host", "port", "auth", "tokens_file", "token_file", "data_dir"}
    needed |= {f"{peer}_url" for peer in PEERS[service]}
    needed |= {"database_url", "migrations"} if service in MIGRATED else set()
    assert needed - settings.model_fields_set == set()
    assert settings.auth == "token"
    listening = {
        (one["metadata"]["name"], port["port"])
        for one in of_kind(documents, "Service")
        for port in one["spec"]["ports"]
    }
    for peer in PEERS[service]:
        url = urlsplit(getattr(settings, f"{peer}_url"))
        assert (url.hostname, url.port) in listening
        assert str(url.hostname).endswith(f"-{peer}")


@pytest.mark.parametrize("service", OURS)
def test_files_and_folders_that_settings_name_are_mounted(
    helm: Helm, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [pod] = [pod for pod in pods(umbrella(helm, "small", "plain")) if pod.component == service]
    [container] = pod.spec["containers"]
    settings = settings_in(service, environment(container), monkeypatch)

    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    [auth] = [volume["secret"] for volume in pod.spec["volumes"] if volume["name"] == mounts["/etc/modelyard/auth"]]
    assert {str(settings.tokens_file), str(settings.token_file)} == {
        f"/etc/modelyard/auth/{item['path']}" for item in auth["items"]
    }
    assert [item["key"] for item in auth["items"]] == ["tokens", service]
    assert str(settings.data_dir) in mounts
    listening = {"port": settings.port} | settings.model_dump(include={"grpc_port"})
    assert list(listening.values()) == [port["containerPort"] for port in container["ports"]]


@pytest.mark.parametrize("service", MIGRATED)
def test_a_migration_is_told_its_database_and_nothing_that_it_does_not_know(
    helm: Helm, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = told(helm, ("small", "plain"), f"{service}-migration")

    settings = settings_in(service, variables, monkeypatch)

    assert variables.keys() <= known_to(service)
    assert settings.database_url == "postgresql://u:p@db:5432/x"
    assert settings.auth == "none", "a job that listens to nobody needs no tokens"


@pytest.mark.parametrize("service", OURS)
def test_every_setting_of_a_service_can_be_set_through_its_chart(
    helm: Helm, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = schema_of(CHARTS[service])["properties"]["settings"]["properties"]
    # A spool has room for two segments of each worker at least, and memory for a body, packed and unpacked; a sink is
    # at one of the hosts that are allowed.
    fitting: dict[str, dict[str, object]] = {
        "inference": {
            "spoolSegmentBytes": 5_000_000,
            "processes": 2,
            "sinkUrl": "http://a/events",
            "maxHeldBytes": 200_000_000,
        },
        "registry": {"picklesUntil": "2030-01-31"},
    }
    values = {name: _other_than_default(field) for name, field in declared.items()} | fitting.get(service, {})

    documents = helm.render("modelyard", merged(profile("small"), {service: {"settings": values}}))

    [pod] = [pod for pod in pods(documents) if pod.component == service]
    settings = settings_in(service, environment(pod.spec["containers"][0]), monkeypatch)
    mine = set(OURS[service].model_fields) - CHART_OWNED - CHARTS[service].owned
    assert len(values) == len(mine)
    assert mine <= settings.model_fields_set
    for name in mine:
        assert _as_told(getattr(settings, name)) == values[_camel(name)], name


def _as_told(value: object) -> object:
    """Return a setting as a chart's values have it."""
    if isinstance(value, date | Path):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {name: _as_told(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _other_than_default(field: dict[str, object]) -> object:
    """Return a value that is allowed; a large number for numbers, since a million must not become 1e+06."""
    if "enum" in field:
        choices = field["enum"]
        assert isinstance(choices, list)
        return choices[-1]
    if "anyOf" in field:
        alternatives = field["anyOf"]
        assert isinstance(alternatives, list)
        return _other_than_default(alternatives[0])
    if field["type"] == "integer":
        return min(int(field.get("maximum", 10**9)), 50_000_000)  # type: ignore[call-overload]
    if field["type"] == "number":
        return 0.25 if "exclusiveMaximum" in field else field.get("maximum", 1234567.5)
    return {"boolean": True, "array": ["a", "b"], "object": {"a": "b"}, "string": "x"}[str(field["type"])]


def test_numbers_of_shutdown_are_the_settings_of_shutdown(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {"preStopSeconds": 7, "drainSeconds": 2, "graceSeconds": 31, "flushSeconds": 2.5}
    documents = helm.render("modelyard", merged(profile("small"), {"inference": {"shutdown": ends}}))
    [pod] = [pod for pod in pods(documents) if pod.component == "inference"]

    settings = settings_in("inference", environment(pod.spec["containers"][0]), monkeypatch)

    assert (settings.drain_s, settings.grace_s) == (2, 31)
    assert settings.flush_s == 2.5  # type: ignore[attr-defined]
    assert pod.spec["terminationGracePeriodSeconds"] == 58


@pytest.mark.parametrize("service", OURS)
def test_where_traces_go_is_told_once_for_all(helm: Helm, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, traced = (
        settings_in(service, told(helm, ("small", feature), service), monkeypatch) for feature in ("plain", "traced")
    )

    assert (plain.otlp_endpoint, plain.environment) == (None, "")
    assert traced.otlp_endpoint == "http://otel-collector.monitoring:4318"
    assert (traced.trace_ratio, traced.environment) == (0.05, "staging")


_READ_BY_MLFLOW = """
import json, mlflow.environment_variables as variables
from mlflow.cli import server
options = [option.envvar for option in server.params if getattr(option, "envvar", None)]
print(json.dumps(options + [name for name in dir(variables) if name.startswith("MLFLOW_")]))
"""


@pytest.fixture(scope="session")
def read_by_mlflow() -> set[str]:
    """The variables that MLflow's server knows, said by itself; importing it warns, so it is asked in a process."""
    command = [sys.executable, "-W", "ignore", "-c", _READ_BY_MLFLOW]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return set(json.loads(done.stdout))


def test_mlflow_is_told_only_what_it_reads(helm: Helm, combination: tuple[str, str], read_by_mlflow: set[str]) -> None:
    for pod in pods(umbrella(helm, *combination)):
        if pod.component.startswith("mlflow"):
            assert set(environment(pod.spec["containers"][0])) - read_by_mlflow - OF_LIBRARIES == set()


def test_mlflow_answers_to_the_names_that_its_callers_use(helm: Helm, combination: tuple[str, str]) -> None:
    variables = told(helm, combination, "mlflow")
    url = urlsplit(told(helm, combination, "registry")["MODELYARD_REGISTRY_MLFLOW_URL"])

    hosts = variables["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    assert {str(url.hostname), url.netloc} <= set(hosts)
    [pod] = [pod for pod in pods(umbrella(helm, *combination)) if pod.component == "mlflow"]
    [header] = pod.spec["containers"][0]["readinessProbe"]["httpGet"]["httpHeaders"]
    assert header["value"] in hosts


def test_a_wrong_setting_is_refused_by_the_service_too(monkeypatch: pytest.MonkeyPatch, helm: Helm) -> None:
    variables = told(helm, ("small", "plain"), "registry") | {"MODELYARD_REGISTRY_PORT": "eighty"}

    with pytest.raises(ValidationError, match="port"):
        settings_in("registry", variables, monkeypatch)
