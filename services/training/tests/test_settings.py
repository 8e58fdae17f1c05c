"""Settings: from the environment alone, refused when they cannot work."""

from __future__ import annotations

import pytest
from modelyard_training.settings import TrainingSettings
from pydantic import ValidationError


def test_every_setting_has_a_default_that_works_on_a_laptop() -> None:
    settings = TrainingSettings()
    assert (settings.port, settings.max_running, settings.own_url) == (8082, 1, "http://127.0.0.1:8082")
    assert settings.job_command[-2:] == ("-m", "modelyard_trainer.main")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_TRAINING_JOB_COMMAND", '["python", "job.py"]')
    monkeypatch.setenv("MODELYARD_TRAINING_PORT", "9000")
    settings = TrainingSettings()
    assert settings.job_command == ("python", "job.py")
    assert settings.own_url == "http://127.0.0.1:9000"


def test_jobs_get_what_they_need_and_what_was_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_TRAINING_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/ours.pem")
    environment = TrainingSettings(job_env=("AWS_REGION", "NOT_SET")).job_environment
    assert environment["AWS_REGION"] == "eu-west-1"
    assert environment["SSL_CERT_FILE"] == "/etc/ssl/ours.pem"
    assert environment["PYTHONHASHSEED"] == "0"
    assert not any("DATABASE" in name or name == "NOT_SET" for name in environment)


def test_a_port_that_jobs_cannot_know_is_refused() -> None:
    with pytest.raises(ValidationError, match="jobs must know where to report"):
        TrainingSettings(port=0)
    assert TrainingSettings(port=0, training_url="http://training:80").own_url == "http://training:80"


def test_listening_beyond_loopback_without_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="beyond loopback"):
        TrainingSettings(host="0.0.0.0")
