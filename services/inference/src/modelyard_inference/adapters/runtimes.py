"""Which runtime runs where: ONNX in this process, what may crash or run code beside it, servers of others elsewhere."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from modelyard_bundle.loading import load
from modelyard_bundle.runtimes.base import Runtime
from modelyard_bundle.runtimes.remote import RemoteRuntime, check_host, host_of
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import BundleManifest

from modelyard_inference.domain.ports import Runtimes

__all__ = ["ChosenRuntimes", "InProcess", "not_here"]


def not_here(name: str, why: str) -> Invalid:
    """Return what is said of a version whose runtime this server does not have."""
    return Invalid(
        f"this server has no {name} runtime ({why}), and the version has none that is here: "
        "an estimator with an ONNX twin is served everywhere"
    )


class InProcess:
    """Runtimes that share this process: the fastest, and only as safe as their libraries."""

    def load(self, folder: Path, manifest: BundleManifest, digest: str, name: str) -> Runtime:
        """Return the runtime. Raise Invalid when the bundle is damaged or a library is not installed."""
        try:
            return load(folder, manifest, prefer=name)
        except ModuleNotFoundError as exc:
            raise not_here(name, f"{exc.name} is not installed") from exc


class RemoteServers:
    """Servers of others that the operator has named.

    Args:
        hosts: ``host:port`` of each.
        call_s: the longest that one call may take, in seconds.
        token_files: with the bearer token of each that wants one.
    """

    def __init__(
        self, hosts: Iterable[str], *, call_s: float, token_files: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        self._hosts = frozenset(hosts)
        self._call_s = call_s
        self._token_files = token_files

    def load(self, folder: Path, manifest: BundleManifest, digest: str, name: str) -> Runtime:
        """Return what asks the server that the bundle names. Raise Invalid when it may not be asked."""
        if manifest.remote is None:
            raise Invalid("the bundle names the remote runtime, and no server: its manifest has no field remote")
        check_host(manifest.remote, self._hosts)
        token_file = self._token_files.get(host_of(manifest.remote))
        runtime = RemoteRuntime(manifest.remote, manifest.signature, timeout_s=self._call_s, token_file=token_file)
        weakref.finalize(runtime, runtime.client.close).atexit = False
        return runtime


class ChosenRuntimes:
    """Hands each name to whoever is responsible for it."""

    def __init__(self, by_name: Mapping[str, Runtimes]) -> None:
        self._by_name = by_name

    def load(self, folder: Path, manifest: BundleManifest, digest: str, name: str) -> Runtime:
        """Return what runs the bundle by the runtime of that name."""
        responsible = self._by_name.get(name)
        if responsible is None:
            raise not_here(name, "nobody has set it up")
        return responsible.load(folder, manifest, digest, name)
