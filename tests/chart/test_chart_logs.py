"""Filebeat's configuration: known to Filebeat key by key, and about exactly the pods that the charts and jobs make.

There is no Filebeat in the registries that the tests may ask, so its own ``filebeat test config`` is not run here; the
keys are those of its reference, written down once more beside what is said about the pods.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.jobs import trainer_pod
from tests.chart.rendering import Helm, pods, umbrella

FOLDER = Path(__file__).parents[2] / "deploy/observability"
INPUT = {
    *("type", "id", "paths", "prospector.scanner.symlinks", "prospector.scanner.fingerprint.enabled"),
    *("file_identity.native", "parsers.container", "parsers.container.stream"),
    *("parsers.container.format", "parsers.ndjson.target", "parsers.ndjson.overwrite_keys"),
    *("parsers.ndjson.expand_keys", "parsers.ndjson.add_error_key"),
}
PROVIDER = {
    *("type", "node", "labels.dedot", "annotations.dedot", "hints.enabled", "hints.default_config.enabled"),
    *(f"hints.default_config.{key}" for key in INPUT),
    *(f"templates.config.{key}" for key in INPUT),
}
KNOWN = {
    *(f"filebeat.autodiscover.providers.{key}" for key in PROVIDER),
    *("processors.add_kubernetes_metadata.host", "processors.add_kubernetes_metadata.matchers.logs_path.logs_path"),
    "processors.add_cloud_metadata",
    *(f"output.elasticsearch.{key}" for key in ("hosts", "api_key", "index", "ssl.certificate_authorities")),
    *(f"setup.template.{key}" for key in ("name", "pattern", "append_fields.name", "append_fields.type")),
    *(f"setup.ilm.{key}" for key in ("enabled", "policy_name", "policy_file", "overwrite")),
    "logging.level",
}
"""Of https://www.elastic.co/docs/reference/beats/filebeat/filebeat-reference-yml, as far as they are used here."""


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice in one place: {keys}"
        return super().construct_mapping(node, deep=deep)


@pytest.fixture(scope="module")
def text() -> str:
    return (FOLDER / "filebeat.yml").read_text()


@pytest.fixture(scope="module")
def configuration(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(text, Loader=_Strict)  # a safe loader
    return loaded


def leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            if key != "condition":  # has its own test
                yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list) and any(isinstance(one, Mapping) for one in node):
        for one in node:
            yield from leaves(one, path)
    else:
        yield path


def holds(condition: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    """Evaluate a condition as Filebeat does."""
    [(kind, what)] = condition.items()
    match kind:
        case "and":
            return all(holds(one, fields) for one in what)
        case "or":
            return any(holds(one, fields) for one in what)
        case "not":
            return not holds(what, fields)
        case "equals":
            return all(fields.get(name) == value for name, value in what.items())
    raise AssertionError(f"{kind} is no condition that is known here")


def test_every_key_is_one_of_filebeats(configuration: dict[str, Any]) -> None:
    assert set(leaves(configuration)) <= KNOWN


def test_every_variable_is_described_or_of_autodiscover(text: str) -> None:
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    used = set(re.findall(r"\$\{([A-Z_]+)(?::[^}]*)?\}", text))

    assert used == set(re.findall(r"^#   ([A-Z_]+) ", comments, flags=re.MULTILINE))
    assert set(re.findall(r"\$\{([a-z.]+)\}", text)) == {"data.kubernetes.container.id"}


def templates_of(configuration: dict[str, Any], labels: Mapping[str, str]) -> list[bool]:
    """Return, for each template that a pod with these labels gets, whether it reads JSON."""
    [provider] = configuration["filebeat.autodiscover"]["providers"]
    fields = {f"kubernetes.labels.{name.replace('.', '_')}": value for name, value in labels.items()}
    matching = [one for one in provider["templates"] if holds(one["condition"], fields)]
    return [any("ndjson" in parser for parser in one["config"][0]["parsers"]) for one in matching]


@pytest.mark.parametrize("feature", ["plain", "hatches", "ours"])
def test_every_pod_of_the_platform_is_read_once_and_as_it_writes(
    helm: Helm, configuration: dict[str, Any], feature: str
) -> None:
    documents = umbrella(helm, "ha", feature)
    labels = {pod.component: pod.labels for pod in pods(documents)}
    labels["trainer"] = trainer_pod(documents)["metadata"]["labels"]

    assert len(labels) > 8
    for component, its in labels.items():
        assert templates_of(configuration, its) == [not component.startswith("mlflow")], component
    assert templates_of(configuration, {"app": "of-somebody-else"}) == []


def test_lines_go_to_one_data_stream_whose_template_and_policy_are_set_up(configuration: dict[str, Any]) -> None:
    template, policy = configuration["setup.template"], configuration["setup.ilm"]
    name = configuration["output.elasticsearch"]["index"]

    assert (template["name"], template["pattern"]) == (name, f"{name}*")
    assert policy["policy_name"] == name
    document = json.loads((FOLDER / Path(policy["policy_file"]).name).read_text())
    assert document["policy"]["phases"].keys() == {"hot", "delete"}
