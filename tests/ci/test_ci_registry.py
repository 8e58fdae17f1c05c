"""Charts and images pushed to a real registry: Debian's, over TLS."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from modelyard_common.testing import free_port
from modelyard_common.testing.required import unavailable

from tools.charts.build import HELM
from tools.ci import supply
from tools.cluster.pki import Authority
from tools.images.build import Built
from tools.images.engine import Engine
from tools.kube_tools import KubeTools

STARTS_WITHIN_S = 30.0
CONFIG = """\
version: 0.1
log: {{accesslog: {{disabled: true}}, level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}
http: {{addr: "127.0.0.1:{port}", tls: {{certificate: {cert}, key: {key}}}}}
"""
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class ImageRegistry:
    """Where it is, and how to ask it."""

    host: str
    authority: Path
    http: httpx.Client

    def tags(self, name: str) -> list[str]:
        found: list[str] = self.http.get(f"/v2/{name}/tags/list").raise_for_status().json()["tags"]
        return found


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ImageRegistry]:
    if not (program := shutil.which("docker-registry")):
        unavailable("docker-registry is not installed; tools/install-cluster-packages.sh installs it")
    folder, port = tmp_path / "registry", free_port()
    folder.mkdir()
    authority = Authority(folder, "ca")
    pair = authority.server("server", ("127.0.0.1", "localhost"))
    config = folder / "config.yml"
    config.write_text(CONFIG.format(folder=folder, port=port, cert=pair.cert, key=pair.key))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), "serve", str(config)], stdout=log, stderr=log)
    trust = ssl.create_default_context(cafile=str(authority.pair.cert))
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as http:
            wait_until_it_answers(http, process, folder / "log")
            yield ImageRegistry(f"127.0.0.1:{port}", authority.pair.cert, http)
    finally:
        process.kill()
        process.wait(20)


def wait_until_it_answers(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends, "the registry does not answer"
        try:
            http.get("/v2/").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)


@pytest.mark.cluster
def test_every_chart_is_pushed_and_can_be_pulled(
    registry: ImageRegistry, tools: KubeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(registry.authority))
    monkeypatch.setenv("RELEASE_CHARTS", f"{registry.host}/charts")

    supply.main(["charts"], tmp_path / "build")

    for name in sorted(path.parent.name for path in HELM.glob("*/Chart.yaml")):
        version = re.findall(r"^version: (\S+)", (HELM / name / "Chart.yaml").read_text(), flags=re.MULTILINE)
        chart = re.findall(r"^name: (\S+)", (HELM / name / "Chart.yaml").read_text(), flags=re.MULTILINE)[0]
        assert registry.tags(f"charts/{chart}") == version
    command = [str(tools.helm4), "template", "modelyard", f"oci://{registry.host}/charts/modelyard"]
    command += ["--values", str(HELM / "modelyard/profiles/ci.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "kind: Deployment" in done.stdout


@pytest.mark.cluster
def test_the_digest_that_a_push_notes_is_the_one_that_the_registry_has(
    registry: ImageRegistry,
    engine: Engine,
    built: Callable[[str], Built],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built("registry")
    for name, value in engine.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CI_IMAGES", f"{registry.host}/ci")
    monkeypatch.setenv("CI_COMMIT_SHA", "c0ffee")

    supply.main(["push", "registry"], tmp_path)

    [(image, reference)] = supply.digests(tmp_path).items()
    answer = registry.http.head("/v2/ci/registry/manifests/c0ffee", headers={"Accept": MANIFESTS}).raise_for_status()
    assert image == "registry"
    assert reference == f"{registry.host}/ci/registry@{answer.headers['docker-content-digest']}"
    engine.run("rmi", f"{registry.host}/ci/registry:c0ffee")
