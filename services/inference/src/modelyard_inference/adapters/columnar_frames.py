"""What the server and the process that reads tables say to each other; apart, so that only that one loads the library.

A frame is a byte that says what, four bytes of length, little-endian, then that many bytes.
"""

from __future__ import annotations

import struct

__all__ = ["FRAME", "OK", "READ_FILE", "READ_PARQUET", "READ_STREAM", "REFUSED", "TOO_LARGE", "WORKER", "WRITE_STREAM"]

FRAME = struct.Struct("<BI")
READ_PARQUET, READ_STREAM, READ_FILE, WRITE_STREAM = range(4)
OK, REFUSED, TOO_LARGE = range(3)
WORKER = "modelyard_inference.adapters.columnar_worker"
