"""docs/runtimes.md names the settings that there are with their defaults, and a server as it is brought."""

from __future__ import annotations

import re
from typing import get_args

from modelyard_contracts.bundle_v1 import BundleManifest, RemoteServer
from modelyard_inference.settings import InferenceSettings
from modelyard_inference_runtime.settings import RuntimeSettings
from modelyard_registry.settings import RegistrySettings

from tests.docs.commands import ROOT, blocks, section

DOCUMENT = "docs/runtimes.md"
TEXT = (ROOT / DOCUMENT).read_text()
ROW = re.compile(r"^\| (`[^|]+`) \| ([^|]+) \|", flags=re.MULTILINE)
ELSEWHERE = "Servers of somebody else"


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_settings_of_the_runtime_are_named_with_their_defaults() -> None:
    told: dict[str, str] = {}
    for cell, values in ROW.findall(section(DOCUMENT, "The inference runtime")):
        told |= dict(zip(names(cell), [value.strip(" `") for value in values.split(", ")], strict=True))

    fields = RuntimeSettings.model_fields
    assert set(told) == {name.upper() for name in fields} - {"SOCKET", "LOG_LEVEL", "ENVIRONMENT"}
    for name, value in told.items():
        default = fields[name.lower()].default
        assert value == (str(default).lower() if isinstance(default, bool) else f"{default:g}"), name


def test_every_runtime_of_a_manifest_has_its_line() -> None:
    known = get_args(get_args(BundleManifest.model_fields["runtimes"].annotation)[0])
    table = TEXT.partition("## ")[0]

    assert known == tuple(names(" ".join(cell for cell, _ in ROW.findall(table))))


def test_the_example_of_a_server_is_one_and_every_field_is_described() -> None:
    (example,) = blocks(DOCUMENT, "json")

    server = RemoteServer.model_validate_json(example)

    assert server.tensors == "matrix"
    described = {name for cell, _ in ROW.findall(section(DOCUMENT, ELSEWHERE) + "|") for name in names(cell)}
    assert described == RemoteServer.model_fields.keys() - {"url"}


def test_variables_that_are_named_are_settings() -> None:
    known = {"INFERENCE_RUNTIME_": RuntimeSettings, "INFERENCE_": InferenceSettings, "REGISTRY_": RegistrySettings}
    named = set(re.findall(r"MODELYARD_([A-Z_]+[A-Z])(?![A-Z_])", TEXT))

    assert len(named) >= 3
    for variable in named:
        prefix = next(prefix for prefix in known if variable.startswith(prefix))
        assert variable.removeprefix(prefix).lower() in known[prefix].model_fields, variable
