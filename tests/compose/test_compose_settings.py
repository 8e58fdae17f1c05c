"""Settings are one contract: what the compose file tells a service is known to it, and all that it needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from modelyard_common.settings import ServiceSettings
from modelyard_inference_runtime.settings import RuntimeSettings
from pydantic import ValidationError

from tests.compose.definition import MIGRATED, OURS, Definition, definition, services, told
from tools.charts.catalog import CHARTS

ALL = services()
# Whom each service asks; an address that is not told would be the one of a laptop.
PEERS = {
    "registry": {"mlflow", "drift"},
    "training": {"registry", "drift", "mlflow", "training"},
    "inference": {"registry", "drift"},
    "drift": {"registry", "training"},
}


def settings_in(service: str, variables: Mapping[str, str], patch: pytest.MonkeyPatch) -> ServiceSettings:
    """Return the settings that a service has with such an environment."""
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)
    settings = CHARTS[service].settings
    assert settings is not None
    return settings()


def known_to(service: str) -> set[str]:
    settings = CHARTS[service].settings
    assert settings is not None
    return {f"MODELYARD_{service.upper()}_{field.upper()}" for field in settings.model_fields}


def strange_to(service: str, definition_of_it: Definition, secrets: Path) -> set[str]:
    """Return the variables of a container that are no settings of its service."""
    return told(definition_of_it, secrets).keys() - known_to(service)


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_of_its_service(service: str, secrets: Path) -> None:
    assert strange_to(service, ALL[service], secrets) == set()


def test_a_misspelt_variable_is_found(secrets: Path) -> None:
    registry = ALL["registry"]
    misspelt = {**registry, "environment": {**registry["environment"], "MODELYARD_REGISTRY_PROT": "80"}}

    assert strange_to("registry", misspelt, secrets) == {"MODELYARD_REGISTRY_PROT"}


@pytest.mark.parametrize("service", OURS)
def test_a_service_is_told_all_that_it_needs(service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(service, told(ALL[service], secrets), monkeypatch)

    needed = {"host", "port", "auth", "tokens_file", "token_file", "data_dir"} | {f"{p}_url" for p in PEERS[service]}
    needed |= {"database_url", "migrations"} if service in MIGRATED else set()
    assert needed - settings.model_fields_set == set()
    assert settings.auth == "token"
    assert settings.migrations == ("require" if service in MIGRATED else "apply")
    assert ALL[service]["ports"][0].endswith(f":{settings.port}")
    assert ALL[service]["healthcheck"]["test"][-2:] == [service.upper(), str(settings.port)]


@pytest.mark.parametrize("service", OURS)
def test_every_address_is_one_that_a_neighbour_listens_on(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(service, told(ALL[service], secrets), monkeypatch)

    for peer in PEERS[service]:
        url = urlsplit(getattr(settings, f"{peer}_url"))
        variables = told(ALL[peer], secrets)
        port = variables["MLFLOW_PORT"] if peer == "mlflow" else variables[f"MODELYARD_{peer.upper()}_PORT"]
        assert (url.hostname, str(url.port)) == (peer, port)
        assert set(ALL[service]["networks"]) & set(ALL[peer]["networks"])


@pytest.mark.parametrize("service", MIGRATED)
def test_service_and_migration_reach_the_same_database_as_the_owner_of_it(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = told(ALL[f"{service}-migration"], secrets)

    settings = settings_in(service, migration, monkeypatch)

    assert migration.keys() <= known_to(service)
    assert settings.database_url == told(ALL[service], secrets)[f"MODELYARD_{service.upper()}_DATABASE_URL"]
    url = urlsplit(str(settings.database_url))
    assert (url.username, url.hostname, url.path) == (service, "postgres", f"/{service}")
    assert url.password == told(ALL["postgres"], secrets)[f"{service.upper()}_PASSWORD"]
    assert f"modelyard_{service}.migrate" in ALL[f"{service}-migration"]["entrypoint"]


@pytest.mark.parametrize("service", OURS)
def test_files_that_settings_name_are_mounted_and_a_service_has_its_own_token_only(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(service, told(ALL[service], secrets), monkeypatch)

    mounted = {f"/run/secrets/{name}": name for name in ALL[service]["secrets"]}
    assert {str(settings.tokens_file), str(settings.token_file)} == set(mounted)
    own = definition()["secrets"][mounted[str(settings.token_file)]]["file"]
    assert own == f"./secrets/{service}"
    assert f"{service}:{settings.data_dir}" in ALL[service]["volumes"]


def test_inference_and_its_runtime_meet_in_one_folder(secrets: Path) -> None:
    server, runtime = told(ALL["inference"], secrets), told(ALL["inference-runtime"], secrets)
    prefix = "MODELYARD_INFERENCE_RUNTIME_"
    names = ("inference", "inference-runtime")
    folders = {name: dict(one.split(":")[:2] for one in ALL[name]["volumes"]) for name in names}

    assert {name.removeprefix(prefix).lower() for name in runtime} <= RuntimeSettings.model_fields.keys()
    assert server[f"{prefix}SOCKET"] == f"{folders['inference']['runtime']}/runtime.sock"
    assert runtime[f"{prefix}SOCKET"] == f"{folders['inference-runtime']['runtime']}/runtime.sock"
    assert set(folders["inference-runtime"]) == {"runtime"}, "neither the spool nor a token"
    assert "secrets" not in ALL["inference-runtime"]
    assert runtime[f"{prefix}PYFUNC"] == "false"
    assert ALL["inference-runtime"]["healthcheck"]["test"][-2:] == ["INFERENCE_RUNTIME", "socket"]


def test_runs_are_processes_of_the_image_that_has_the_trainer(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in("training", told(ALL["training"], secrets), monkeypatch)

    assert settings.launcher == "local"  # type: ignore[attr-defined]
    assert "modelyard_trainer.main" in settings.job_command  # type: ignore[attr-defined]
    assert ALL["training"]["build"]["args"]["WITH"] == "trainer"


def test_mlflow_answers_to_the_name_that_its_callers_use(secrets: Path) -> None:
    hosts = told(ALL["mlflow"], secrets)["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    callers = [told(ALL[name], secrets)[f"MODELYARD_{name.upper()}_MLFLOW_URL"] for name in ("registry", "training")]

    for url in map(urlsplit, callers):
        assert {str(url.hostname), url.netloc} <= set(hosts)


def test_mlflow_has_the_keys_of_the_store_that_stands_beside_it(secrets: Path) -> None:
    client, server = told(ALL["mlflow"], secrets), told(ALL["object-store"], secrets)

    assert client["AWS_ACCESS_KEY_ID"] == server["ROOT_ACCESS_KEY_ID"]
    assert client["AWS_SECRET_ACCESS_KEY"] == server["ROOT_SECRET_ACCESS_KEY"]
    assert client["MLFLOW_S3_ENDPOINT_URL"] == told(ALL["bucket"], secrets)["AWS_ENDPOINT_URL"]
    assert urlsplit(client["MLFLOW_ARTIFACTS_DESTINATION"]).netloc == ALL["bucket"]["entrypoint"][-1]


@pytest.mark.parametrize("service", OURS)
def test_where_traces_go_is_said_once_for_all_services(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"OTLP_ENDPOINT": "http://collector:4318", "TRACE_RATIO": "0.05", "ENVIRONMENT": "staging"}

    by_default = settings_in(service, told(ALL[service], secrets), monkeypatch)
    traced = settings_in(service, told(definition(chosen)["services"][service], secrets), monkeypatch)

    assert (by_default.otlp_endpoint, by_default.trace_ratio, by_default.environment) == (None, 1.0, "")
    assert (traced.otlp_endpoint, traced.trace_ratio, traced.environment) == ("http://collector:4318", 0.05, "staging")


def test_a_wrong_setting_is_refused_by_the_service(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = told(ALL["registry"], secrets) | {"MODELYARD_REGISTRY_PORT": "eighty"}

    with pytest.raises(ValidationError, match="port"):
        settings_in("registry", variables, monkeypatch)
