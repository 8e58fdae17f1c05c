"""What the server and the process that reads tables say to each other; apart: only that one loads the library."""

from __future__ import annotations

__all__ = ["OK", "READ_FILE", "READ_PARQUET", "READ_STREAM", "REFUSED", "TOO_LARGE", "WORKER", "WRITE_STREAM"]

READ_PARQUET, READ_STREAM, READ_FILE, WRITE_STREAM = range(4)
OK, REFUSED, TOO_LARGE = range(3)
WORKER = "modelyard_inference.adapters.columnar_worker"
