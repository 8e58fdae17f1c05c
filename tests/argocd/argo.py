"""What Argo CD makes of `deploy/argocd`, as it does it: expands ApplicationSets, renders Applications, applies limits.

Rendering is Helm's own, with the arguments and in the order that Argo CD's repo server gives. Templates of
ApplicationSets are rendered by Helm's engine too, which has the same template language with the same functions.
"""

from __future__ import annotations

import copy
import fnmatch
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tests.chart.rendering import Document, merged

ROOT = Path(__file__).parents[2]
ARGOCD = "deploy/argocd"
IN_CLUSTER = "https://kubernetes.default.svc"
# Of the cluster; Argo CD hands it to Helm.
KUBERNETES = "1.35.0"
CLUSTER_SCOPED = {"Namespace", "CustomResourceDefinition", "ClusterRole", "PersistentVolume"}
_REFERENCE = re.compile(r"(?<![\w)\]])\.(\w+(?:\.\w+)*)")
_ACTION = re.compile(r"{{(.*?)}}", re.DOTALL)


class Refused(Exception):
    """Helm, a template or a generator refused; the message says why."""


@dataclass
class Checkout:
    """A working copy of what Argo CD reads of the repository, and the helm that it has."""

    folder: Path
    helm: Path
    _rendered: dict[str, list[Document]] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, helm: Path) -> Checkout:
        """Copy what git has: no dependencies inside charts."""
        skipped = shutil.ignore_patterns("charts", "Chart.lock")
        shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=skipped)
        return cls(folder, helm)

    @functools.cached_property
    def _made(self) -> list[Document]:
        made = [one for one in self.objects() if one["kind"] == "Application"]
        sets = [one for one in self.objects() if one["kind"] == "ApplicationSet"]
        return made + [application for one in sets for application in self.expand(one)]

    def objects(self) -> list[Document]:
        """Return what the root Application makes."""
        return self.render(self.root())

    def root(self) -> Document:
        """Return the root Application."""
        return next(one for one in self.by_hand() if one["kind"] == "Application")

    def by_hand(self) -> list[Document]:
        """Return what a person applies."""
        return _documents((self.folder / ARGOCD / "root.yaml").read_text())

    def applications(self) -> list[Document]:
        """Return every Application below the root, those of ApplicationSets too; once read, changes are not seen."""
        return copy.deepcopy(self._made)

    def expand(self, application_set: Document) -> list[Document]:
        """Return the Applications of an ApplicationSet."""
        spec = application_set["spec"]
        assert spec["goTemplate"] and spec["goTemplateOptions"] == ["missingkey=error"]
        [generator] = spec["generators"]
        parameters = self.parameters(generator)
        templates = self.templates(json.dumps(spec["template"]), parameters)
        patches = self.templates(spec["templatePatch"], parameters)
        found = [
            _patched(json.loads(template), yaml.safe_load(patch))
            | {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application"}
            for template, patch in zip(templates, patches, strict=True)
        ]
        names = [application["metadata"]["name"] for application in found]
        assert len(names) == len(set(names)), names
        return found

    def parameters(self, generator: Document) -> list[Document]:
        """Return the parameters of a generator."""
        [(kind, told)] = generator.items()
        if kind == "matrix":
            first, second = told["generators"]
            outers = self.parameters(first)
            # The second generator's strings are templates over the first one's parameters.
            inners = [json.loads(text) for text in self.templates(json.dumps(second), outers)]
            return [
                merged(outer, parameters)
                for outer, inner in zip(outers, inners, strict=True)
                for parameters in self.parameters(inner)
            ]
        if kind == "list":
            return list(told["elements"])
        assert kind == "git", kind
        return list(self._from_git(told))

    def _from_git(self, told: Document) -> Iterator[Document]:
        for one in told.get("files", []):
            for path in sorted(self.folder.glob(one["path"])):
                content = yaml.safe_load(path.read_text())
                for parameters in content if isinstance(content, list) else [content]:
                    yield parameters | {"path": _path(path.relative_to(self.folder).parent)}
        for one in told.get("directories", []):
            for path in sorted(self.folder.glob(one["path"])):
                if path.is_dir():
                    yield {"path": _path(path.relative_to(self.folder))}

    def templates(self, text: str, several: list[Document]) -> list[str]:
        """Return a Go template's text for several parameters. Raise Refused for a parameter that there is not."""
        for parameters in several:
            _require(text, parameters)
        chart = self.folder / "template"
        (chart / "templates").mkdir(parents=True, exist_ok=True)
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: template\nversion: 0.1.0\n")
        # As strings in a document, so that Helm leaves alone what they say.
        (chart / "templates/_text.tpl").write_text('{{- define "text" -}}' + text + "{{- end -}}")
        each = '{{- range .Values.several }}\n- {{ include "text" . | toJson }}\n{{- end }}\n'
        (chart / "templates/text.yaml").write_text(f"texts:\n{each}")
        (chart / "values.yaml").write_text(json.dumps({"several": several}))
        [document] = _documents(self._helm(chart, "template", "x", "."))
        return list(document["texts"] or [])

    def render(self, application: Document) -> list[Document]:
        """Return the objects of an Application, hooks included. Raise Refused."""
        key = json.dumps(application["spec"], sort_keys=True)
        if key not in self._rendered:
            self._rendered[key] = list(self._render(application["spec"]["source"], application["spec"]["destination"]))
        return copy.deepcopy(self._rendered[key])

    def _render(self, source: Document, destination: Document) -> Iterator[Document]:
        chart = self.folder / source["path"]
        if not (chart / "Chart.yaml").is_file():
            for path in sorted(chart.glob("*.yaml")):
                yield from _documents(path.read_text())
            return
        told = source.get("helm", {})
        command = ["template", ".", "--name-template", told["releaseName"], "--namespace", destination["namespace"]]
        command += ["--kube-version", KUBERNETES]
        for name in told.get("valueFiles", []):
            # From the top of the repository, or from the chart.
            path = self.folder / name.lstrip("/") if name.startswith("/") else chart / name
            command += ["--values", str(path.resolve())]
        if "valuesObject" in told:
            inline = self.folder / "inline.yaml"
            inline.write_text(json.dumps(told["valuesObject"]))
            command += ["--values", str(inline)]
        if not (chart / "charts").is_dir() and "dependencies" in yaml.safe_load((chart / "Chart.yaml").read_text()):
            self._helm(chart, "dependency", "build")
        yield from _documents(self._helm(chart, *command, "--include-crds"))

    def _helm(self, chart: Path, *arguments: str) -> str:
        command = [str(self.helm), *arguments]
        done = subprocess.run(command, cwd=chart, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout


def _documents(text: str) -> list[Document]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, Loader=loader) if document is not None]


def _require(text: str, parameters: Document) -> None:
    """Helm fills in nothing for what it does not find; Argo CD, with missingkey=error, refuses it."""
    for action in _ACTION.findall(text):
        for reference in _REFERENCE.findall(action):
            here: Any = parameters
            for key in reference.split("."):
                if not isinstance(here, Mapping) or key not in here:
                    raise Refused(f"map has no entry for key {key!r}: {action}")
                here = here[key]


def _path(folder: Path) -> Document:
    return {"path": str(PurePosixPath(folder)), "basename": folder.name, "segments": list(folder.parts)}


def _patched(document: Any, patch: Any) -> Document:
    """Return a document after a merge patch: null takes a key away."""
    result: Document = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _patched(result[key], value)
        else:
            result[key] = value
    return result


def wave(document: Document) -> int:
    """Return the sync wave of an object."""
    return int(document["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))


def is_helm_test(document: Document) -> bool:
    """Return whether an object is a test, which Argo CD leaves alone."""
    hooks = document["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    return bool(hooks) and set(hooks.split(",")) <= {"test", "test-success", "test-failure"}


def group_of(document: Document) -> str:
    """Return the API group of an object."""
    group, slash, _ = document["apiVersion"].partition("/")
    return group if slash else ""


def refusals(project: Document, application: Document, documents: list[Document]) -> list[str]:
    """Say what a project has against an Application and its objects."""
    spec, source, destination = project["spec"], application["spec"]["source"], application["spec"]["destination"]
    found = []
    if not any(fnmatch.fnmatchcase(source["repoURL"], pattern) for pattern in spec["sourceRepos"]):
        found.append(f"repository {source['repoURL']}")
    for document in documents:
        namespaced = document["kind"] not in CLUSTER_SCOPED
        namespace = document["metadata"].get("namespace", destination["namespace"])
        if not _is_permitted(spec, document, namespaced):
            found.append(f"{group_of(document)}/{document['kind']}")
        if namespaced and not _is_destination(spec, destination["server"], namespace):
            found.append(f"namespace {namespace}")
    if not _is_destination(spec, destination["server"], destination["namespace"]):
        found.append(f"destination {destination['server']} {destination['namespace']}")
    return found


def _is_permitted(spec: Document, document: Document, namespaced: bool) -> bool:
    scope = "namespace" if namespaced else "cluster"
    allowed, forbidden = spec.get(f"{scope}ResourceWhitelist"), spec.get(f"{scope}ResourceBlacklist", [])
    if any(_matches(one, document) for one in forbidden):
        return False
    # Without a list every kind of a namespace is allowed, and none of the cluster.
    return namespaced if allowed is None else any(_matches(one, document) for one in allowed)


def _matches(allowed: Document, document: Document) -> bool:
    return fnmatch.fnmatchcase(group_of(document), allowed["group"]) and fnmatch.fnmatchcase(
        document["kind"], allowed["kind"]
    )


def _is_destination(spec: Document, server: str, namespace: str) -> bool:
    return any(
        fnmatch.fnmatchcase(server, one["server"]) and fnmatch.fnmatchcase(namespace, one["namespace"])
        for one in spec["destinations"]
    )
