"""What docs/install.md and docs/operations.md tell people to type is what helm, kubectl and the charts take."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.commands import ROOT, blocks, commands, section
from tools.charts.images import images
from tools.kube_tools import KubeTools

INSTALL = "docs/install.md"
DOCUMENTS = (INSTALL, "docs/operations.md")
MIRROR = "registry.example.org/modelyard"
CLOUDS = ("EKS", "GKE", "AKS")
# The clouds share the commands that stand after the last of them.
INSTALLING = [(INSTALL, "Release"), (INSTALL, "kind"), (INSTALL, "AKS"), ("docs/operations.md", "Upgrade")]
BUILDS = {"make charts", "python -m tools.charts.build build/charts"}
TYPED = [
    pytest.param(words, id=f"{Path(document).stem}-{number}-{words[0]}-{words[1]}")
    for document in DOCUMENTS
    for number, words in enumerate(commands(document))
]


def answer(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    told = None if environment is None else {**os.environ, **environment}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=told
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program(tools: KubeTools, words: list[str]) -> Path:
    return {"helm": tools.helm4, "kubectl": tools.kubectl}[words[0]]


def flags(words: list[str]) -> set[str]:
    own = words[: words.index("--")] if "--" in words else words
    return {word.partition("=")[0] for word in own if word.startswith("--")}


def verbs(words: list[str]) -> list[str]:
    """Return the words that name a subcommand: `create secret generic`, `rollout restart`, `get`."""
    plain, skip = [], False
    for word in words[1:]:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word == "--namespace"
        else:
            plain.append(word)
    depth = {"create": 3 if plain[1:2] == ["secret"] else 2, "rollout": 2, "show": 2}.get(plain[0], 1)
    return plain[:depth]


def test_the_documents_hold_commands_of_every_kind() -> None:
    assert {words[0] for document in DOCUMENTS for words in commands(document)} == {"helm", "kubectl", "python"}


@pytest.mark.parametrize("words", TYPED)
def test_a_command_and_its_flags_exist(tools: KubeTools, words: list[str]) -> None:
    if words[0] == "python":
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2]) is not None
        return
    known = answer(program(tools, words), *verbs(words), "--help")
    if words[0] == "kubectl":
        known += answer(tools.kubectl, "options")

    # kubectl answers an unknown verb with its general help and no error.
    assert f"{words[0]} {' '.join(verbs(words))}" in known
    assert {flag for flag in flags(words) if not re.search(rf"{flag}\b", known)} == set()


@pytest.mark.parametrize("words", [one for one in TYPED if one.values[0][0] == "kubectl" and "create" in one.values[0]])
def test_what_kubectl_makes_without_a_cluster_it_makes(tools: KubeTools, words: list[str]) -> None:
    assert answer(tools.kubectl, *words[1:], "--dry-run=client", "--output=yaml")


@pytest.mark.parametrize("title", ["Release", "kind", *CLOUDS])
def test_every_release_of_the_page_renders_with_its_values(
    tools: KubeTools, charts: Path, tmp_path: Path, title: str
) -> None:
    shared = section(INSTALL, "AKS") if title in CLOUDS else section(INSTALL, title)
    [line] = re.findall(r"^helm install (.*)$", shared, flags=re.MULTILINE)
    if title in CLOUDS:
        [values] = re.findall(r"```yaml\n(.*?)```", section(INSTALL, title), flags=re.DOTALL)
        (tmp_path / "my-values.yaml").write_text(values)
    line = line.replace("build/charts", str(charts)).replace("my-values.yaml", str(tmp_path / "my-values.yaml"))
    words = line.replace('"$MIRROR"', MIRROR).replace("--wait", "").split()

    rendered = answer(tools.helm4, "template", *words)

    kinds = {document["kind"] for document in yaml.safe_load_all(rendered) if document}
    assert {"Deployment", "StatefulSet", "NetworkPolicy"} <= kinds
    if title in CLOUDS:
        assert kinds & {"Ingress", "HTTPRoute"}


@pytest.mark.parametrize(("document", "title"), INSTALLING)
def test_charts_are_built_in_the_same_section_before_they_are_installed(document: str, title: str) -> None:
    script = "".join(re.findall(r"```bash\n(.*?)```", section(document, title), flags=re.DOTALL)).splitlines()
    installs = [
        number for number, line in enumerate(script) if re.match(r"helm (install|upgrade) .*build/charts", line)
    ]
    builds = [number for number, line in enumerate(script) if line in BUILDS]

    assert installs
    assert builds, "nobody says how build/charts comes to be"
    assert builds[0] < installs[0]


def test_no_other_section_installs_charts() -> None:
    titles = {
        (document, title)
        for document in DOCUMENTS
        for title in re.findall(r"^## (.*)$", (ROOT / document).read_text(), flags=re.MULTILINE)
        if re.search(r"^helm (install|upgrade) ", section(document, title), flags=re.MULTILINE)
    }

    assert titles == set(INSTALLING)


def test_workloads_that_are_scaled_by_name_are_those_of_the_profile_and_none_is_forgotten(
    tools: KubeTools, charts: Path
) -> None:
    values = ROOT / "deploy/helm/modelyard/profiles/small.yaml"
    rendered = answer(tools.helm4, "template", "modelyard", charts / "modelyard", "--values", values)
    made = {
        f"{document['kind'].lower()}/{document['metadata']['name']}"
        for document in yaml.safe_load_all(rendered)
        if document and document["kind"] in {"Deployment", "StatefulSet"}
    }
    scaled = re.findall(
        r"`kubectl --namespace ml scale ([^`]*) --replicas=1`", section("docs/operations.md", "Restore")
    )

    assert sorted(name for names in scaled for name in names.split()) == sorted(made)


def test_the_list_of_the_air_gap_is_what_the_profiles_pull(tools: KubeTools, charts: Path) -> None:
    [listed] = blocks(INSTALL, "text")

    assert listed.splitlines() == images(charts, tools.helm4)


def test_the_jobs_image_and_values_of_the_installer_are_in_the_list(tools: KubeTools, charts: Path) -> None:
    assigned = ["training.jobs.image.repository=ours/trainer", "drift.image.tag=v9"]

    found = images(charts, tools.helm4, [ROOT / "deploy/helm/modelyard/profiles/ha.yaml"], assigned)

    assert {"ours/trainer:0.1.0", "modelyard/drift:v9"} <= set(found)
    assert "modelyard/drift:0.1.0" not in found


def test_what_is_pushed_to_a_mirror_is_what_the_charts_pull_from_it(
    tools: KubeTools, charts: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    for name in ("docker", "make"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "helm").symlink_to(tools.helm4)
    [script] = re.findall(r"```bash\n(.*?)```", section(INSTALL, "Images"), flags=re.DOTALL)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    answer("bash", "-euo", "pipefail", "-c", script, environment={"MIRROR": MIRROR, "PATH": path})

    did = [line.split() for line in log.read_text().splitlines()]
    pushed = {words[2] for words in did if words[:2] == ["docker", "push"]}
    tagged = {words[3]: words[2] for words in did if words[:2] == ["docker", "tag"]}
    assert pushed == set(images(charts, tools.helm4, assignments=[f"global.imageRegistry={MIRROR}"]))
    assert pushed == set(tagged)
    assert tagged[f"{MIRROR}/modelyard/drift:0.1.0"] == "modelyard/drift:dev"


def test_values_named_in_the_prose_are_in_the_schemas(charts: Path) -> None:
    prose = "".join(re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL) for name in DOCUMENTS)
    sections = "global|registry|training|inference|drift|operator|mlflow"
    named = set(re.findall(rf"`((?:{sections})(?:\.[a-zA-Z]+)+)[`:]", prose))
    schemas = {path.parent.name: json.loads(path.read_text()) for path in charts.glob("*/values.schema.json")}

    assert len(named) > 10
    assert {path for path in named if not is_described(path, schemas)} == set()


def is_described(path: str, schemas: Mapping[str, Any]) -> bool:
    chart, *keys = path.split(".")
    schema = whole = schemas["modelyard" if chart == "global" else chart]
    for key in ["global", *keys] if chart == "global" else keys:
        below = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
        if not below:
            return False
        schema = below
        while "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = whole["definitions" if "definitions" in whole else "$defs"][name]
    return True


def test_the_tool_says_what_helm_refused(tools: KubeTools) -> None:
    command = [sys.executable, "-m", "tools.charts.images", "--helm", str(tools.helm4), "--set", "global.nonsense=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert done.stdout == ""
