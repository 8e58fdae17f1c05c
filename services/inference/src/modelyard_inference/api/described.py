"""What a server tells of itself and its models, over REST and gRPC alike.

A configuration is what the signature says in Triton's words. Statistics are those of the metrics; queue, input and
output are not told apart here and are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelyard_contracts.open_inference import IndexEntry, MetadataTensor, ModelMetadata, ServerMetadata

from modelyard_inference.api.codecs.tensors import input_tensors, output_tensors
from modelyard_inference.domain.records import Totals
from modelyard_inference.usecases.serving import LoadedVersion, ServedModels, Serving

__all__ = ["SERVER", "VERSION", "TotalsOf", "config_of", "index_of", "metadata_of", "statistics_of"]

VERSION = "0.1.0"
SERVER = ServerMetadata(
    name="modelyard-inference",
    version=VERSION,
    extensions=("model_repository", "binary_tensor_data", "model_configuration", "statistics"),
)

TotalsOf = Callable[[str, int], Totals]


def metadata_of(serving: Serving, loaded: LoadedVersion | None = None) -> ModelMetadata:
    """Return the metadata of a version; of the champion when none is named."""
    loaded = loaded or serving.champion
    return ModelMetadata(
        name=serving.routing.model,
        versions=tuple(str(one.version.number) for one in serving.loaded),
        platform=loaded.platform,
        inputs=input_tensors(loaded.signature),
        outputs=output_tensors(loaded.signature),
    )


def index_of(served: ServedModels, *, only_ready: bool) -> list[IndexEntry]:
    """Return the versions that are loaded, and the models that wait for one.

    Args:
        only_ready: leave out what cannot be asked now.
    """
    found = [_entry(serving, loaded) for serving in served.all() for loaded in serving.loaded]
    if only_ready:
        return [entry for entry in found if entry.state == "READY"]
    waiting = [
        IndexEntry(name=name, version="", state="UNAVAILABLE", reason=reason)
        for name, reason in sorted(served.waiting.items())
    ]
    return found + waiting


def _entry(serving: Serving, loaded: LoadedVersion) -> IndexEntry:
    """Return a version; ready it is while what runs it is there."""
    problem = loaded.problem
    return IndexEntry(
        name=serving.routing.model,
        version=str(loaded.version.number),
        state="UNAVAILABLE" if problem else "READY",
        reason=problem,
    )


def config_of(serving: Serving, loaded: LoadedVersion) -> dict[str, Any]:
    """Return a version's configuration, field by field Triton's ``ModelConfig``."""
    return {
        "name": serving.routing.model,
        "platform": loaded.platform,
        "backend": "modelyard",
        # Shapes say everything here: the rows are a dimension that is seen, not one that a batcher adds.
        "max_batch_size": 0,
        "input": [_tensor(one) for one in input_tensors(loaded.signature)],
        "output": [_tensor(one) for one in output_tensors(loaded.signature)],
    }


def statistics_of(serving: Serving, versions: Sequence[LoadedVersion], totals: TotalsOf) -> list[dict[str, Any]]:
    """Return the statistics of versions, field by field Triton's ``ModelStatistics``."""
    return [_statistics(serving, loaded, totals) for loaded in versions]


def _statistics(serving: Serving, loaded: LoadedVersion, totals: TotalsOf) -> dict[str, Any]:
    model, number = serving.routing.model, loaded.version.number
    found = totals(model, number)
    spent = {"count": found.answers, "ns": round(found.predict_s * 1e9)}
    nothing = {"count": 0, "ns": 0}
    return {
        "name": model,
        "version": str(number),
        "inference_count": found.rows,
        "execution_count": found.answers,
        "inference_stats": {
            "success": spent,
            "fail": {"count": found.failures, "ns": 0},
            "queue": nothing,
            "compute_input": nothing,
            "compute_infer": spent,
            "compute_output": nothing,
        },
    }


def _tensor(tensor: MetadataTensor) -> dict[str, Any]:
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return {"name": tensor.name, "data_type": f"TYPE_{kind}", "dims": list(tensor.shape)}
