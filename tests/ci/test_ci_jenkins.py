"""The Jenkinsfile is Groovy by Groovy's own compiler, and declarative by the rules of Jenkins' documentation.

Jenkins itself checks a file only on a running server (`jenkins-cli declarative-linter`); the rules here are the part of
its grammar that a Jenkinsfile of this size can get wrong.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_groovy

from tests.ci.pipelines import JENKINSFILE, ROOT

PIPELINE = {"agent", "environment", "libraries", "options", "parameters", "post", "stages", "tools", "triggers"}
STAGE = {"agent", "environment", "input", "matrix", "options", "parallel", "post", "stages", "steps", "tools", "when"}
WORK = {"matrix", "parallel", "stages", "steps"}
POST = {"always", "changed", "fixed", "regression", "aborted", "failure", "success", "unstable", "unsuccessful"}
POST |= {"cleanup"}


@dataclass(frozen=True)
class Call:
    """``name arguments { below }``."""

    name: str
    arguments: str
    below: tuple[Call, ...] | None

    def named(self, name: str) -> list[Call]:
        return [call for call in self.below or () if call.name == name]


class Wrong(Exception):
    """The file is no declarative pipeline."""


def parsed(source: str) -> list[Call]:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_groovy.language()))
    root = parser.parse(source.encode()).root_node
    if root.has_error:
        raise Wrong("this is not Groovy")
    return list(calls(root))


def calls(node: tree_sitter.Node) -> tuple[Call, ...]:
    found: list[Call] = []
    for child in node.named_children:
        if child.type == "expression_statement":
            found += calls(child)
        elif child.type in ("method_invocation", "juxt_function_call"):
            name = child.child_by_field_name("name")
            body = child.child_by_field_name("body")
            arguments = child.child_by_field_name("arguments") or child.child_by_field_name("args")
            assert name is not None and name.text is not None
            text = (arguments.text or b"").decode() if arguments else ""
            found.append(Call(name.text.decode(), text, None if body is None else calls(body)))
        elif (child.text or b"").rstrip(b"\n;") in (b"agent any", b"agent none"):
            found.append(Call("agent", "any", None))  # to Groovy's grammar a variable `any` of the type `agent`
        elif child.type != "line_comment":
            raise Wrong(f"{child.type} is no declarative statement")
    return tuple(found)


def only(call: Call, allowed: set[str], *, needed: set[str]) -> None:
    names = [one.name for one in call.below or ()]
    if wrong := [name for name in names if name not in allowed or names.count(name) > 1]:
        raise Wrong(f"{call.name} {call.arguments}: {wrong[0]} may not be there, or not twice")
    if needed - set(names):
        raise Wrong(f"{call.name} {call.arguments}: {', '.join(needed - set(names))} is missing")


def check(source: str) -> Call:
    """Return the pipeline. Raise Wrong."""
    top = parsed(source)
    if [call.name for call in top] != ["pipeline"]:
        raise Wrong("a declarative pipeline is one block: pipeline")
    [pipeline] = top
    only(pipeline, PIPELINE, needed={"agent", "stages"})
    check_stages(pipeline.named("stages")[0])
    for post in pipeline.named("post"):
        only(post, POST, needed=set())
    return pipeline


def check_stages(stages: Call) -> None:
    if not stages.below or {call.name for call in stages.below} != {"stage"}:
        raise Wrong(f"{stages.name} holds stages, at least one")
    for stage in stages.below:
        if not stage.arguments.startswith(("'", '"', "('", '("')):
            raise Wrong("a stage has a name")
        only(stage, STAGE, needed=set())
        work = [call for call in stage.below or () if call.name in WORK]
        if len(work) != 1 or not work[0].below:
            raise Wrong(f"stage {stage.arguments} does nothing, or two things")
        if work[0].name in ("parallel", "stages"):
            check_stages(work[0])


@pytest.fixture
def groovy(node_modules: Path) -> str:
    """The class path of Groovy, which npm-groovy-lint brings."""
    if shutil.which("java") is None:
        pytest.skip("there is no java; tools/install-test-packages.sh installs it")
    libraries = node_modules / "npm-groovy-lint/lib/java/groovy/lib"
    assert list(libraries.glob("groovy-[0-9]*.jar"))
    return f"{libraries}/*"


def compiled(groovy: str, folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    file = folder / JENKINSFILE
    file.write_text(source)
    command = ["java", "-cp", groovy, "org.codehaus.groovy.tools.FileSystemCompiler", "-d", str(folder / "classes")]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.timeout(300, func_only=True)
def test_groovy_itself_compiles_the_jenkinsfile(groovy: str, tmp_path: Path) -> None:
    done = compiled(groovy, tmp_path, (ROOT / JENKINSFILE).read_text())

    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert (tmp_path / "classes/Jenkinsfile.class").is_file()


@pytest.mark.parametrize(
    ("written", "instead"),
    [("stage('Check') {", "stage('Check' {"), ("time: 3, unit", "time: 3 unit"), ("sh 'make types'", "sh 'make types")],
    ids=["a-bracket", "a-comma", "a-quote"],
)
def test_what_groovy_refuses_is_found(groovy: str, tmp_path: Path, written: str, instead: str) -> None:
    source = (ROOT / JENKINSFILE).read_text()
    assert written in source

    assert "startup failed" in compiled(groovy, tmp_path, source.replace(written, instead, 1)).stderr


def test_the_jenkinsfile_is_a_declarative_pipeline_whose_steps_are_shell() -> None:
    pipeline = check((ROOT / JENKINSFILE).read_text())

    stages = pipeline.named("stages")[0].named("stage")
    steps = [step for stage in stages for step in stage.named("steps")[0].below or ()]
    assert len(steps) > 8
    assert {step.name for step in steps} == {"sh"}


@pytest.mark.parametrize(
    ("written", "instead", "why"),
    [
        ("stage('Check') {", "stage('Check' {", "not Groovy"),
        ("agent {", "agnet {", "agnet may not be there"),
        ("stages {\n        stage('Set up')", "steps {\n        stage('Set up')", "may not be there"),
        ("            steps {\n                sh 'make setup'\n            }\n", "", "does nothing"),
        ("always {", "ever {", "ever may not be there"),
        ("pipeline {", "node {", "one block"),
        ("stage('Set up')", "stage()", "a stage has a name"),
        ("    post {", "    agent any\n    post {", "or not twice"),
        ("pipeline {", "def x = 1\npipeline {", "is no declarative statement"),
    ],
)
def test_a_jenkinsfile_that_jenkins_would_refuse_is_found(written: str, instead: str, why: str) -> None:
    source = (ROOT / JENKINSFILE).read_text()
    assert written in source

    with pytest.raises(Wrong, match=why):
        check(source.replace(written, instead, 1))
