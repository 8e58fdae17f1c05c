"""What can go wrong while a cluster is made, in one tree.

ClusterError
├── CannotRun       this machine lacks what a cluster of our own takes; tests are skipped with this reason
└── ComponentFailed a part of the node did not come up, or died; the end of its log is in the message
"""

__all__ = ["CannotRun", "ClusterError", "ComponentFailed"]


class ClusterError(Exception):
    """The cluster cannot be had."""


class CannotRun(ClusterError):  # reads as what it says
    """This machine lacks something that a cluster takes."""


class ComponentFailed(ClusterError):
    """A part of the node did not come up."""
