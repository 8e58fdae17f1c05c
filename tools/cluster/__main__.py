"""A cluster by hand: bring one up and keep it until Ctrl-C, or remove what killed sessions left behind."""

import argparse
import signal
import sys
import threading

from tools.cluster import binaries, cleanup, node
from tools.cluster.errors import ClusterError


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "build", "clean"])
    command = parser.parse_args().command
    try:
        if command == "clean":
            cleanup.remove_stale()
        elif command == "build":
            print(binaries.ensure().node.parent)
        else:
            _up()
    except ClusterError as error:
        sys.exit(f"cluster: {error}")


def _up() -> None:
    node.require_machine()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    running = node.start(binaries.ensure())
    try:
        print(f"export KUBECONFIG={running.layout.kubeconfig}", flush=True)
        ended.wait()
    except KeyboardInterrupt:
        pass
    finally:
        running.stop()


if __name__ == "__main__":
    main()
