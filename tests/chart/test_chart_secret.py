"""The Secret with the platform's tokens: what services accept, and what charts ask for."""

from __future__ import annotations

import subprocess
import sys

import kubernetes_validate
import yaml
from modelyard_common.auth.tokens import hash_token, parse_tokens

from tests.chart.jobs import trainer_job
from tests.chart.rendering import ROOT, Document, Helm, pods, umbrella
from tools.charts.secret import PRINCIPALS, token_secret


def made() -> Document:
    command = [sys.executable, "-m", "tools.charts.secret", "--name", "ours", "--namespace", "ml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=ROOT)
    secret: Document = yaml.safe_load(done.stdout)
    return secret


def test_the_secret_is_one_and_its_tokens_are_those_that_services_accept() -> None:
    secret = made()

    kubernetes_validate.validate(secret, "1.35", strict=True)
    data = dict(secret["stringData"])
    accepted = parse_tokens(data.pop("tokens"))
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == ("ours", "ml")
    assert {name: accepted[hash_token(token)].role for name, token in data.items()} == PRINCIPALS
    assert {name: accepted[hash_token(token)].name for name, token in data.items()} == {one: one for one in PRINCIPALS}


def test_no_token_is_made_twice() -> None:
    first, second = token_secret("a"), token_secret("a")

    tokens = [*first["stringData"].values(), *second["stringData"].values()]  # type: ignore[attr-defined]
    assert len(set(tokens)) == len(tokens)


def test_the_secret_holds_every_key_that_the_charts_mount(helm: Helm) -> None:
    documents = umbrella(helm, "ha", "plain")
    job = {"metadata": {"name": "job"}, "kind": "Job", **trainer_job(documents)}

    wanted = {
        item["key"]
        for pod in [*pods(documents), *pods([job])]
        for volume in pod.spec.get("volumes", [])
        if volume.get("secret", {}).get("secretName") == "modelyard-auth"
        for item in volume["secret"]["items"]
    }

    assert wanted
    assert wanted <= {"tokens", *PRINCIPALS}
