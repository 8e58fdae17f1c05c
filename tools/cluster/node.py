"""Bring up a Kubernetes of one node: network, certificates, programs in order, then DNS and metrics.

Everything is real but two things: images come from archives and no registry, and NetworkPolicies are accepted and not
enforced, since the CNI plugins of Debian have no such thing.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools import kube_tools
from tools.cluster import cleanup, config, network
from tools.cluster.archive import write_scratch_image
from tools.cluster.binaries import Binaries
from tools.cluster.errors import CannotRun, ClusterError, ComponentFailed
from tools.cluster.layout import Layout
from tools.cluster.pki import Authority, write_kubeconfig
from tools.cluster.process import Components, until

__all__ = ["Node", "require_machine", "start"]

PROGRAMS = ("containerd", "runc", "ctr", "etcd", "ip", "nsenter", "nft", "iptables", "conntrack", "catatonit")
MANIFESTS = Path(__file__).parent / "manifests"
# A quarter of a minute on an idle machine; a busy one is given much more before it is called broken.
READY_TIMEOUT_S = 120.0
_CLIENTS = {  # file -> user, group
    "admin": ("admin", "system:masters"),
    "apiserver-kubelet": ("apiserver-kubelet", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{config.NODE}", "system:nodes"),
}


def require_machine() -> None:
    """Check that this machine can carry a cluster.

    Raises:
        CannotRun: it cannot, and the message says what is missing.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotRun("a cluster of one's own takes root on Linux; or name one by KUBECONFIG")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if missing or not Path("/usr/lib/cni/bridge").exists():
        raise CannotRun(f"not installed: {', '.join(missing) or 'CNI plugins'}; run tools/install-cluster-packages.sh")


@dataclass(frozen=True)
class Node:
    """A running cluster of one node."""

    layout: Layout
    components: Components
    kubectl: Path

    def load_archive(self, archive: Path) -> None:
        """Make the images of a `docker save` archive known to the node."""
        arguments = ["--address", self.layout.containerd_socket, "--namespace", "k8s.io", "images", "import", archive]
        _run(["ctr", *arguments], timeout_s=READY_TIMEOUT_S)

    def stop(self) -> None:
        """End the programs, the pods, and everything that the cluster left on this machine."""
        for name in reversed(list(self.components.running)):
            self.components.stop(name)
        cleanup.remove(self.layout)


def start(binaries: Binaries) -> Node:
    """Return a cluster whose node is Ready and whose DNS and metrics answer.

    Raises:
        CannotRun: this machine cannot carry one.
        ClusterError: a part did not come up; what had been started is removed again.
    """
    require_machine()
    cleanup.remove_stale()
    kubectl = kube_tools.ensure().kubectl
    layout = Layout.make()
    node = Node(layout, Components(layout), kubectl)
    try:
        layout.owner.write_text(cleanup.stamp(os.getpid()))
        network.create(layout.name)
        _prepare(layout)
        _start_control_plane(node, binaries)
        _start_node(node, binaries)
        _start_addons(node, binaries)
    except BaseException:
        node.stop()
        raise
    return node


def _prepare(layout: Layout) -> None:
    authority = Authority(layout.pki, "ca")
    front = Authority(layout.pki, "front-proxy-ca")
    front.client("front-proxy-client", "front-proxy-client")
    service = "kubernetes.default.svc.cluster.local"
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", service, "localhost")
    authority.server("apiserver", (*names, "10.96.0.1", "127.0.0.1", network.NODE_IP))
    kubelet_server = authority.server("kubelet-server", (config.NODE, network.NODE_IP))
    for file, (user, group) in _CLIENTS.items():
        pair = authority.client(file, user, group)
        server = f"https://{config.API}"
        write_kubeconfig(layout.pki / f"{file}.conf", server=server, authority=authority.pair, client=pair)
    config.write_files(layout, kubelet_server=kubelet_server, authority=authority.pair)
    for tree in cleanup.CGROUPS.iterdir():
        if (tree / "cgroup.procs").exists() and tree.name != "unified":
            (tree / layout.name).mkdir(exist_ok=True)
    if (cleanup.CGROUPS / "cgroup.controllers").exists():
        (cleanup.CGROUPS / layout.name).mkdir(exist_ok=True)
    _share_cpuset(cleanup.CGROUPS / "cpuset" / layout.name)


def _share_cpuset(group: Path) -> None:
    # A new cpuset of control groups v1 is empty, and no process can live in it until it has processors and memory.
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (group / file).exists():
            (group / file).write_text((group.parent / file).read_text())


def _start_control_plane(node: Node, binaries: Binaries) -> None:
    layout, components = node.layout, node.components
    components.start("etcd", ["etcd", *config.etcd_flags(layout)])
    components.start("kube-apiserver", [binaries.node, "kube-apiserver", *config.api_server_flags(layout)])
    _open_door(node)
    components.await_ready("kube-apiserver", lambda: _answers(node, "/readyz"), timeout_s=READY_TIMEOUT_S)
    pki = layout.pki
    components.start("controller-manager", [binaries.node, "kube-controller-manager", *config.controller_flags(layout)])
    scheduler = [f"--kubeconfig={pki}/scheduler.conf", "--leader-elect=false"]
    components.start("scheduler", [binaries.node, "kube-scheduler", *scheduler])


def _open_door(node: Node) -> None:
    layout = node.layout
    port_file = layout.root / "api-port"
    relay = [sys.executable, "-I", Path(__file__).parent / "relay.py", network.path(layout.name), port_file, config.API]
    node.components.start("relay", relay, inside=False)
    node.components.await_ready("relay", port_file.exists, timeout_s=READY_TIMEOUT_S)
    inside = (layout.pki / "admin.conf").read_text()
    layout.kubeconfig.touch(mode=0o600)
    layout.kubeconfig.write_text(inside.replace(config.API, f"127.0.0.1:{port_file.read_text()}"))


def _start_node(node: Node, binaries: Binaries) -> None:
    layout, components = node.layout, node.components
    root = layout.root
    components.start("containerd", ["containerd", "--config", root / "containerd.toml"])
    components.await_ready("containerd", layout.containerd_socket.exists, timeout_s=READY_TIMEOUT_S)
    pause = Path(shutil.which("catatonit") or "catatonit")
    node.load_archive(write_scratch_image(root / "pause.tar", tag=config.PAUSE, program=pause, arguments=["-P"]))
    kubelet = [f"--config={root}/kubelet.json", f"--kubeconfig={layout.pki}/kubelet.conf", f"--root-dir={root}/kubelet"]
    kubelet += [f"--cert-dir={root}/kubelet/pki", f"--hostname-override={config.NODE}", f"--node-ip={network.NODE_IP}"]
    components.start("kubelet", [binaries.node, "kubelet", *kubelet])
    components.start("kube-proxy", [binaries.node, "kube-proxy", f"--config={root}/kube-proxy.json"])
    components.await_ready("kubelet", lambda: _is_ready(node, "node/node"), timeout_s=READY_TIMEOUT_S)


def _start_addons(node: Node, binaries: Binaries) -> None:
    root = node.layout.root
    for name, program in (("coredns", binaries.coredns), ("metrics-server", binaries.metrics_server)):
        tag = f"docker.io/modelyard-test/{name}:1"
        archive = write_scratch_image(root / f"{name}.tar", tag=tag, program=program)
        node.load_archive(archive)
        archive.unlink()
        _run([*_kubectl(node), "apply", "-f", MANIFESTS / f"{name}.yaml"])
    # Every namespace has one before a pod can be made in it.
    ready = until(lambda: _succeeds(node, "get", "serviceaccount/default"), timeout_s=READY_TIMEOUT_S)
    if not ready:
        raise ClusterError("the controller manager made no ServiceAccount in the namespace default")
    for name in ("coredns", "metrics-server"):
        _await_rollout(node, name)


def _await_rollout(node: Node, name: str) -> None:
    kubectl = [*_kubectl(node), "--namespace=kube-system"]
    try:
        wait = ["rollout", "status", f"--timeout={READY_TIMEOUT_S:.0f}s", f"deployment/{name}"]
        _run([*kubectl, *wait], timeout_s=READY_TIMEOUT_S + 10)
    except ClusterError as error:
        facts = (["describe", "pods", f"--selector=k8s-app={name}"], ["logs", "--tail=20", f"deployment/{name}"])
        told = [_output([*kubectl, *words])[-3000:] for words in facts]
        raise ComponentFailed("\n".join([str(error), *told])) from error


def _kubectl(node: Node) -> list[object]:
    return [node.kubectl, f"--kubeconfig={node.layout.kubeconfig}", "--request-timeout=30s"]


def _answers(node: Node, path: str) -> bool:
    return _succeeds(node, "get", "--raw", path)


def _is_ready(node: Node, resource: str) -> bool:
    return _succeeds(node, "wait", "--for=condition=Ready", resource, "--timeout=0s")


def _succeeds(node: Node, *arguments: str) -> bool:
    command = [str(word) for word in (*_kubectl(node), *arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def _output(command: list[object]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def _run(command: list[object] | list[str], *, timeout_s: float = 60.0) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode:
        raise ClusterError(f"{' '.join(words[:4])} … failed: {(done.stdout + done.stderr).strip()[-2000:]}")
