"""The one door into the cluster's network: a loopback port here whose connections come out in the namespace there.

    python relay.py /run/netns/NAME PORT_FILE 127.0.0.1:6443

A socket stays in the network namespace that it was made in. So this process first listens, then moves into the
cluster's namespace, and every connection that it makes from then on is made in there. It needs one thread for that and
nothing of the machine's network.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
CONNECT_TIMEOUT_S = 5.0
CHUNK_BYTES = 64 * 1024


def main() -> None:
    """Relay until SIGTERM."""
    namespace, port_file, target = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    _move_to(namespace)
    # Renamed into place, so that its reader never sees half a number.
    scratch = Path(f"{port_file}.new")
    scratch.write_text(str(listener.getsockname()[1]))
    scratch.replace(port_file)
    host, port = target.rsplit(":", 1)
    asyncio.run(_serve(listener, host, int(port)))


def _move_to(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(descriptor)


async def _serve(listener: socket.socket, host: str, port: int) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:  # TimeoutError is one
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(relay, sock=listener, limit=CHUNK_BYTES)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        # Half-closed, for a peer that still has something to say.
        writer.write_eof() if writer.can_write_eof() else writer.close()


if __name__ == "__main__":
    main()
