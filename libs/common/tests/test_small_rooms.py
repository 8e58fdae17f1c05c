"""Settings, traces, clocks, health: small rooms with one promise each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from modelyard_common.clock import Clock, SystemClock
from modelyard_common.health import Health
from modelyard_common.settings import ServiceSettings, is_loopback
from modelyard_common.testing import FakeClock
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict


class RegistrySettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="MODELYARD_REGISTRY_")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_tokens(host: str) -> None:
    assert is_loopback(host)
    assert ServiceSettings(host=host).auth == "none"


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "10.0.0.1", "192.168.1.2", "::ffff:0.0.0.0", "example.org", "127.0.0.1.example.org", "0"],
)
def test_beyond_loopback_without_tokens_nothing_starts(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="beyond loopback"):
        ServiceSettings(host=host)

    assert ServiceSettings(host=host, auth="token", tokens_file=tmp_path / "tokens").host == host


def test_tokens_without_a_file_are_refused() -> None:
    with pytest.raises(ValidationError, match="set tokens_file"):
        ServiceSettings(auth="token")


def test_there_is_no_insecure_override(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSECURE", "ALLOW_INSECURE", "SKIP_AUTH"):
        monkeypatch.setenv(f"MODELYARD_{name}", "1")
    monkeypatch.setenv("MODELYARD_HOST", "0.0.0.0")

    with pytest.raises(ValidationError, match="beyond loopback"):
        ServiceSettings()


def test_each_service_reads_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_REGISTRY_PORT", "8081")
    monkeypatch.setenv("MODELYARD_TRAINING_PORT", "8082")
    monkeypatch.setenv("MODELYARD_REGISTRY_DRIFT_URL", "http://drift")

    settings = RegistrySettings()

    assert (settings.port, settings.drift_url) == (8081, "http://drift")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("AUTH", "off"), ("LOG_LEVEL", "loud"), ("DRAIN_S", "-1"), ("MAX_BODY_BYTES", "1")],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MODELYARD_REGISTRY_{name}", value)

    with pytest.raises(ValidationError, match=name.lower()):
        RegistrySettings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServiceSettings().host = "0.0.0.0"  # type: ignore[misc]


def test_the_database_is_a_file_of_the_service_unless_told(tmp_path: Path) -> None:
    assert ServiceSettings(data_dir=tmp_path).database("drift") == f"sqlite:///{tmp_path}/drift.db"
    assert ServiceSettings(database_url="postgresql://db/x").database("drift") == "postgresql://db/x"


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
def test_a_clock_tells_utc_and_never_goes_back(clock: Clock) -> None:
    first, second = clock.monotonic(), clock.monotonic()

    assert clock.now().tzinfo is UTC
    assert second >= first


def test_the_system_clock_is_the_machines() -> None:
    assert abs(SystemClock().now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_fake_clock_moves_both_of_its_hands() -> None:
    clock = FakeClock()
    before = clock.now(), clock.monotonic()
    clock.advance(90)

    assert clock.now() - before[0] == timedelta(seconds=90)
    assert clock.monotonic() - before[1] == 90


def test_a_check_that_raises_is_shown_without_its_message() -> None:
    def check() -> str | None:
        raise RuntimeError("postgresql://user:password@db")

    health = Health()
    health.started()
    health.add("database", check, critical=True)

    report = health.report()

    assert not report.ready
    assert report.checks["database"] == "the check failed: RuntimeError"


def test_ready_needs_a_start_and_ends_with_the_drain() -> None:
    health = Health()
    health.add("peer", lambda: None, critical=True)
    assert not health.report().ready
    health.started()
    assert health.report().ready
    assert health.report().checks == {"peer": "ok"}
    health.drain()
    assert not health.report().ready
    assert "about to stop" in health.report().checks["draining"]


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://standard:4318"}, "http://standard:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"MODELYARD_OTLP_ENDPOINT": ""}, None),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://standard:4318", "MODELYARD_OTLP_ENDPOINT": "https://ours/otlp"},
            "https://ours/otlp",
        ),
    ],
    ids=["none", "standard", "empty standard", "empty", "ours wins"],
)
def test_where_traces_go_may_be_said_in_opentelemetrys_own_way(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str | None
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert ServiceSettings().otlp_endpoint == endpoint


def test_a_wrong_setting_is_named_and_no_value_is_quoted() -> None:
    with pytest.raises(ValidationError) as caught:
        ServiceSettings(otlp_endpoint="collector:4318", database_url="postgresql://u:hidden@db/x")

    assert "otlp_endpoint" in str(caught.value)
    assert "collector:4318" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        ServiceSettings(host="0.0.0.0", database_url="postgresql://u:hidden@db/x")
    assert "hidden" not in str(caught.value)
