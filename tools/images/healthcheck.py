"""The image's health check: ask this container's own service whether it is alive.

Reads the port and address that the service reads, so that a container moved to another port stays healthy. Answers by
its exit code; needs no shell and no curl, which the images do not have.

    python healthcheck.py REGISTRY 8081
    python healthcheck.py INFERENCE_RUNTIME socket
"""

import http.client
import os
import socket
import struct
import sys

TIMEOUT_S = 3.0
STATUS, OK = 4, 64
"""What the inference runtime is asked, and what a good answer begins with: ``modelyard_bundle.isolated``."""
FRAME = struct.Struct("<BI")
EMPTY = b"\x90"


def main() -> None:
    """Exit 0 when ``/health/live`` answers 200."""
    service, default_port = sys.argv[1:]
    if default_port == "socket":
        ask_socket(os.environ[f"MODELYARD_{service}_SOCKET"])
        return
    port = int(os.environ.get(f"MODELYARD_{service}_PORT", default_port))
    host = os.environ.get(f"MODELYARD_{service}_HOST", "127.0.0.1")
    # A wildcard address can be listened on, not asked.
    connection = http.client.HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, TIMEOUT_S)  # noqa: S104
    try:
        connection.request("GET", "/health/live")
        status = connection.getresponse().status
    except OSError as error:
        sys.exit(f"{service.lower()} does not answer on port {port}: {error}")
    sys.exit(0 if status == http.client.OK else f"{service.lower()} answers {status}")


def ask_socket(path: str) -> None:
    """Exit 0 when whoever listens there says how it is."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(path)
            connection.sendall(FRAME.pack(STATUS, len(EMPTY)) + EMPTY)
            answer = connection.recv(FRAME.size)
        except OSError as error:
            sys.exit(f"nobody answers at {path}: {error}")
    if answer[:1] != bytes([OK]):
        sys.exit(f"what answers at {path} is no inference runtime")


if __name__ == "__main__":
    main()
