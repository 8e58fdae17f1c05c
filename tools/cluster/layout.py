"""Where a cluster keeps what: one folder for everything, so that whatever is left of it can be found and removed."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PREFIX", "Layout"]

PREFIX = "modelyard-cluster-"


@dataclass(frozen=True)
class Layout:
    """The folder of one cluster, and the names that follow from it."""

    root: Path

    @classmethod
    def make(cls) -> "Layout":
        """Make the folder and its rooms."""
        layout = cls(Path(tempfile.mkdtemp(prefix=PREFIX)))
        # Pods' processes have other users and must reach their volumes.
        layout.root.chmod(0o711)
        for room in ("pki", "logs", "cni", "kubelet", "pod-logs", "containerd", "volume-plugins"):
            (layout.root / room).mkdir()
        layout.etcd.mkdir(parents=True, mode=0o700)
        return layout

    @classmethod
    def all(cls) -> "list[Layout]":
        """Return every cluster's folder on this machine, also one whose session was killed."""
        return [cls(path) for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if path.is_dir()]

    @property
    def name(self) -> str:
        """What the network namespace and the control groups are called."""
        return self.root.name

    @property
    def pki(self) -> Path:
        """Certificates, keys and kubeconfigs."""
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for this machine's own network namespace."""
        return self.root / "kubeconfig"

    @property
    def owner(self) -> Path:
        """Which process this cluster belongs to; when it is dead the cluster may be removed."""
        return self.root / "owner"

    @property
    def containerd_socket(self) -> Path:
        """Where the kubelet and `ctr` reach containerd."""
        return self.root / "containerd.sock"

    @property
    def etcd(self) -> Path:
        """In memory where that is possible: etcd syncs each write, and a test's cluster need not survive anything."""
        memory = Path("/dev/shm")  # noqa: S108  # meant: a tmpfs
        return (memory if memory.is_dir() else self.root) / f"{self.name}-etcd"

    def log(self, component: str) -> Path:
        """Return the log file of a component."""
        return self.root / "logs" / f"{component}.log"
