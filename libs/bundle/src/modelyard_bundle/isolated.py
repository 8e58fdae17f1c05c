"""What an inference server and the process that runs models for it say to each other, over Unix sockets.

Frames of MessagePack; numbers travel as the bytes of their arrays. Nothing that is sent can hold code, everything is
checked against a type, and every frame and every wait is bounded, in both directions: a process that was taken over by
a model can answer nonsense, and nothing else.

The supervisor's socket takes ``LOAD``, ``UNLOAD``, ``REPLACE`` and ``STATUS``. What is loaded belongs to the connection
that asked for it, and is let go when that ends. Each version has a process and a socket of its own, which takes
``ASK``: an operation, the columns of some rows, and options.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from modelyard_common.errors import Invalid, ModelyardError, Unavailable
from modelyard_common.frames import BadFrame, packed, read_frame
from modelyard_contracts.bundle_v1 import Signature

from modelyard_bundle.runtimes.base import Predicted
from modelyard_bundle.signature import Columns, Table, numeric_features, text_features

__all__ = [
    "ASK",
    "AWAY",
    "FAILED",
    "INVALID",
    "LOAD",
    "OK",
    "PREDICT",
    "REPLACE",
    "STATUS",
    "UNLOAD",
    "Ask",
    "Load",
    "Loaded",
    "ModelFailed",
    "Peer",
    "Replace",
    "Status",
    "Unload",
    "VersionStatus",
    "answer_of",
    "ask_of",
    "columns_of",
    "decoded",
    "encoded",
    "predicted_of",
    "received",
    "wire_predicted",
]

LOAD, UNLOAD, REPLACE, STATUS, ASK = range(1, 6)
OK, INVALID, AWAY, FAILED = range(64, 68)

PREDICT = "predict"
"""The operation that every runtime has."""

T = TypeVar("T")
_DTYPES: Mapping[str, npt.DTypeLike] = {"i8": np.int64, "f8": np.float64, "b1": np.bool_}


class ModelFailed(Exception):
    """The model raised; only the kind of what it raised is told, since its words may hold what somebody sent."""


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message: fields in their order."""


class Load(_Message, frozen=True):
    """Have a version loaded, by that runtime, from a folder whose every byte the digest stands for.

    The folder may be named from the one of the supervisor's socket: containers mount that in different places.
    """

    folder: str
    digest: str
    runtime: str


class Loaded(_Message, frozen=True):
    """The name of the version's socket, beside the supervisor's, and which process answers there now."""

    address: str
    process: int


class Unload(_Message, frozen=True):
    """This connection needs the version no more."""

    digest: str


class Replace(_Message, frozen=True):
    """End a process that hangs, if it is still the one, and start another."""

    digest: str
    process: int
    reason: str


class VersionStatus(_Message, frozen=True):
    """How a version is doing."""

    digest: str
    runtime: str
    state: Literal["starting", "ready", "resting", "quarantined", "refused"]
    reason: str = ""
    process: int = 0
    restarts: int = 0
    memory_bytes: int = 0
    """Resident memory of its process."""


class Status(_Message, frozen=True):
    """How the process is doing."""

    process: int
    versions: tuple[VersionStatus, ...]


class Ask(_Message, frozen=True):
    """Rows for an operation.

    Attributes:
        columns: feature name to the bytes of float32 numbers, or to texts.
        options: what else the operation takes.
        numbers: all numeric features in their order, row by row; then the columns are texts alone.
    """

    operation: str
    columns: dict[str, bytes | list[str]]
    options: dict[str, Any] = {}
    numbers: bytes | None = None


class _Answers(_Message, frozen=True):
    """``Predicted``: labels as the bytes of an array of a named type, or one by one."""

    labels: bytes | list[str | int | float | bool]
    dtype: Literal["i8", "f8", "b1", "list"]
    probabilities: bytes | None
    width: int


def encoded(message: Any) -> bytes:
    """Return a message's bytes; arrays and numbers of numpy are written as Python's."""
    return msgspec.msgpack.encode(message, enc_hook=_plain)


def decoded(body: bytes, kind: type[T]) -> T:
    """Return the message of a body. Raise Invalid when it is none of this kind."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Invalid("the message is not what this operation takes") from exc


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot send a {type(value).__name__}")


def ask_of(operation: str, columns: Columns, options: Mapping[str, Any] | None = None) -> Ask:
    """Return what is sent to ask about columns that the signature has checked. Law: ``columns_of`` gives them back."""
    numbers = None
    if isinstance(columns, Table) and columns.numbers.shape[1]:
        numbers = _bytes_of(columns.numbers)
    sent: dict[str, bytes | list[str]] = {
        name: values.tolist() if values.dtype == object else _bytes_of(values)
        for name, values in columns.items()
        if numbers is None or values.dtype == object
    }
    return Ask(operation, sent, dict(options or {}), numbers)


def _bytes_of(numbers: npt.NDArray[Any]) -> bytes:
    return np.ascontiguousarray(numbers, dtype="<f4").tobytes()


def columns_of(signature: Signature, ask: Ask) -> Columns:
    """Return the columns that were sent.

    Raises:
        Invalid: they are not those of the signature, or not of one length.
    """
    numeric = numeric_features(signature)
    texts = text_features(signature)
    if ask.columns.keys() != set(texts if ask.numbers is not None else (*numeric, *texts)):
        raise Invalid("the columns are not those of the signature")
    words = {name: _texts_of(name, ask.columns[name]) for name in texts}
    if ask.numbers is None:
        numbers = {name: _numbers_of(name, ask.columns[name]) for name in numeric}
        columns: Columns = {column.name: (words | numbers)[column.name] for column in signature.features}
    else:
        if not numeric or len(ask.numbers) % (4 * len(numeric)):
            raise Invalid("the numbers are not rows of the signature's numeric features")
        columns = Table(
            {name: place for place, name in enumerate(numeric)},
            _numbers_of("the numbers", ask.numbers).reshape(-1, len(numeric)),
            words,
        )
    if len({len(values) for values in columns.values()}) != 1:
        raise Invalid("the columns have different numbers of rows")
    return columns


def _numbers_of(name: str, sent: bytes | list[str]) -> npt.NDArray[np.float32]:
    if not isinstance(sent, bytes) or len(sent) % 4:
        raise Invalid(f"{name}: is not written as its type is")
    return np.frombuffer(sent, dtype="<f4")


def _texts_of(name: str, sent: bytes | list[str]) -> npt.NDArray[Any]:
    if isinstance(sent, bytes):
        raise Invalid(f"{name}: is not written as its type is")
    texts = np.empty(len(sent), dtype=object)
    texts[:] = sent
    return texts


def wire_predicted(predicted: Predicted) -> bytes:
    """Return answers as they are sent. Law: ``predicted_of`` gives them back."""
    labels, dtype = predicted.labels, "list"
    for name, kind in _DTYPES.items():
        if np.can_cast(labels.dtype, kind, casting="safe") and labels.dtype.kind == name[0]:
            dtype = name
    sent: bytes | list[Any]
    sent = labels.tolist() if dtype == "list" else np.ascontiguousarray(labels, dtype=_DTYPES[dtype]).tobytes()
    chances = predicted.probabilities
    if chances is None:
        return encoded((sent, dtype, None, 0))
    return encoded((sent, dtype, np.ascontiguousarray(chances, dtype="<f4").tobytes(), chances.shape[1]))


def predicted_of(body: bytes) -> Predicted:
    """Return the answers that were sent. Raise Invalid when they are none."""
    found = decoded(body, _Answers)
    try:
        if isinstance(found.labels, bytes):
            labels: npt.NDArray[Any] = np.frombuffer(found.labels, dtype=_DTYPES[found.dtype])
        else:
            labels = np.empty(len(found.labels), dtype=object)
            labels[:] = found.labels
        if found.probabilities is None:
            return Predicted(labels, None)
        return Predicted(labels, np.frombuffer(found.probabilities, dtype="<f4").reshape(-1, found.width))
    except (KeyError, ValueError) as exc:
        raise Invalid("the answers are not written as answers are") from exc


def received(sock: socket.socket, deadline: float) -> Callable[[int], bytes]:
    """Return what reads that many bytes of a socket, or fewer where it ends, until a deadline (monotonic)."""

    def read(length: int) -> bytes:
        content = bytearray(length)
        view, done = memoryview(content), 0
        while done < length:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            sock.settimeout(left_s)
            got = sock.recv_into(view[done:])
            if not got:
                break
            done += got
        return bytes(view[:done])

    return read


class Peer:
    """A connection to one of the sockets; one call at a time.

    Raises:
        OSError: nobody listens there.
    """

    def __init__(self, address: Path | str, *, connect_s: float = 2.0, most_bytes: int = 256 * 1024**2) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._most_bytes = most_bytes
        try:
            self._socket.settimeout(connect_s)
            self._socket.connect(str(address))
        except OSError:
            self._socket.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether the other side still listens, as far as is known without asking; what it says unasked is a fault."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def call(self, kind: int, message: object, timeout_s: float) -> bytes:
        """Return the body of an answer.

        Raises:
            Invalid, Unavailable: as the other side says.
            ModelFailed: the model raised.
            TimeoutError: no answer in time. The connection is of no use any more.
            OSError, EOFError: the other side has ended, or has lost its way. The same.
        """
        deadline = time.monotonic() + timeout_s
        self._socket.settimeout(max(timeout_s, 0.001))
        self._socket.sendall(packed(kind, encoded(message)))
        try:
            status, body = read_frame(received(self._socket, deadline), self._most_bytes)
        except BadFrame as exc:
            raise EOFError from exc
        return answer_of(status, body)

    def interrupt(self) -> None:
        """Have the call that another thread waits for end at once, by EOFError or OSError. That thread closes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()


def answer_of(status: int, body: bytes) -> bytes:
    """Return the body of an answer.

    Raises:
        Invalid, Unavailable: as the other side says.
        ModelFailed: the model raised.
        EOFError: it says nothing that an answer says.
    """
    if status == OK:
        return body
    words = body[:2000].decode(errors="replace")
    kinds: Mapping[int, type[ModelyardError]] = {INVALID: Invalid, AWAY: Unavailable}
    if status in kinds:
        raise kinds[status](words)
    raise ModelFailed(words) if status == FAILED else EOFError()
