"""Our service as it is shipped, and with one choice undone each: what every choice that is kept buys."""

from __future__ import annotations

from bench.inference.contenders import CONTENDERS, Contender, modelyard
from bench.inference.environments import OURS
from bench.inference.names import UNDONE

__all__ = ["VARIANTS"]

_MAIN = "bench.inference.undone"


def _undone(name: str, title: str) -> Contender:
    return Contender(name, title, "ours", modelyard(main=_MAIN, settings={UNDONE: name}), OURS)


VARIANTS: tuple[Contender, ...] = (
    next(contender for contender in CONTENDERS if contender.key == "modelyard"),
    _undone("heads", "the head of each request parsed, also one that was read before"),
    _undone("apart", "each request by itself, nothing shared by those of one turn"),
    _undone("look", "no second look at the sockets in a turn"),
    _undone("table", "the log and the answers of what came together written one by one"),
    _undone("session", "one row through ONNX Runtime like many"),
    _undone("bound", "one row of a linear model through ONNX Runtime, in memory of its own"),
    _undone("task", "a task of the ASGI application for each request"),
    _undone("route", "a FastAPI route instead of a plain ASGI application"),
    _undone("json", "the standard library's json instead of msgspec"),
    _undone("objects", "the floats of a matrix read as objects instead of into an array"),
    _undone("asyncio", "asyncio's event loop instead of uvloop"),
    Contender("bare", "scikit-learn instead of ONNX Runtime", "ours", modelyard(bare=True)),
    Contender(
        "batch",
        "each request by itself instead of what came together as one batch",
        "ours",
        modelyard(settings={"MODELYARD_INFERENCE_BATCH_ROWS": "1"}),
        OURS,
    ),
    Contender(
        "asleep",
        "the event loop asleep as soon as it has answered",
        "ours",
        modelyard(settings={"MODELYARD_INFERENCE_AWAKE_US": "0"}),
        OURS,
    ),
    Contender(
        "thread",
        "the model in a thread instead of on the event loop",
        "ours",
        modelyard(settings={"MODELYARD_INFERENCE_INLINE_ROWS": "0"}),
        OURS,
    ),
    _undone("files", "each file of the log a new one instead of one that is written over"),
    _undone("pieces", "each block of the log read, checked and framed again instead of sent as it lies in the file"),
    _undone("rows", "each row of the log sent to drift as JSON instead of blocks as they were written"),
    Contender(
        "unsampled", "payloads logged without features (a setting of the model)", "ours", modelyard(logged=0), OURS
    ),
    _undone("unlogged", "no log of payloads at all"),
)
