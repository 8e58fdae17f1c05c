"""The settings of the node's programs, as files and as flags.

Each line that is not a default is here for a reason of the test machines: control groups v1, no CAP_SYS_RESOURCE,
nearly full disks, no way out of the network.
"""

import json
from pathlib import Path

from tools.cluster.layout import Layout
from tools.cluster.network import NODE_IP
from tools.cluster.pki import Pair

__all__ = [
    "API",
    "DNS_IP",
    "NODE",
    "PAUSE",
    "api_server_flags",
    "controller_flags",
    "etcd_flags",
    "write_files",
]

NODE = "node"
API = "127.0.0.1:6443"
DNS_IP = "10.96.0.10"
PAUSE = "docker.io/modelyard-test/pause:1"
_SERVICES = "10.96.0.0/16"
_PODS = "10.244.0.0/24"
_ETCD = "http://127.0.0.1:2379"
_CONTAINERD = """\
version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Nothing of a pod outlives the folder: its network namespace is a mount below it too.
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{root}/cni"
"""


def write_files(layout: Layout, *, kubelet_server: Pair, authority: Pair) -> None:
    """Write the configuration files of containerd, the CNI, the kubelet and kube-proxy."""
    root = layout.root
    containerd = _CONTAINERD.format(root=root, socket=layout.containerd_socket, pause=PAUSE)
    (root / "containerd.toml").write_text(containerd)
    _json(root / "cni" / "10-pods.conflist", _cni(layout))
    # What pods ask for a name outside the cluster: an address that never answers, as there is no way out.
    (root / "resolv.conf").write_text("nameserver 198.18.77.3\n")
    _json(root / "kubelet.json", _kubelet(layout, kubelet_server, authority))
    _json(root / "kube-proxy.json", _kube_proxy(layout))


def etcd_flags(layout: Layout) -> list[str]:
    """Return etcd's flags."""
    peer = "http://127.0.0.1:2380"
    return [
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def api_server_flags(layout: Layout) -> list[str]:
    """Return the API server's flags."""
    pki = layout.pki
    return [
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={NODE_IP}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--service-cluster-ip-range={_SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={pki}/ca.key",
        f"--service-account-signing-key-file={pki}/ca.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        # For metrics-server, which the API server calls on behalf of others.
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--enable-aggregator-routing=true",
        "--shutdown-delay-duration=0s",
    ]


def controller_flags(layout: Layout) -> list[str]:
    """Return the controller manager's flags."""
    pki = layout.pki
    return [
        f"--kubeconfig={pki}/controller-manager.conf",
        f"--authentication-kubeconfig={pki}/controller-manager.conf",
        f"--authorization-kubeconfig={pki}/controller-manager.conf",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki}/ca.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--flex-volume-plugin-dir={layout.root}/volume-plugins",
        # A test waits for an autoscaler; three times as lively as the default of 15 s, and as steady.
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
    ]


def _cni(layout: Layout) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": _PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{layout.root}/cni/addresses",
        },
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _kubelet(layout: Layout, server: Pair, authority: Pair) -> dict[str, object]:
    root = layout.root
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority.cert)}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(server.cert),
        "tlsPrivateKeyFile": str(server.key),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "podLogsDir": f"{root}/pod-logs",
        "volumePluginDir": f"{root}/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_IP],
        "resolvConf": f"{root}/resolv.conf",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
        "shutdownGracePeriod": "0s",
    }


def _kube_proxy(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{layout.pki}/kube-proxy.conf"},
        "mode": "nftables",
        "clusterCIDR": _PODS,
        "hostnameOverride": NODE,
        # Limits of the whole machine, which is not ours to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _json(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1))
