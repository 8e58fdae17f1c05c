"""Triton's extensions of V2 that its clients and tools ask for: a model's configuration, and its statistics.

A configuration is what the signature says in Triton's words. Statistics are those of the metrics; queue, input and
output are not told apart here and are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelyard_contracts.open_inference import MetadataTensor

from modelyard_inference.api.codecs.tensors import input_tensors, output_tensors
from modelyard_inference.api.error_documents import v2_errors
from modelyard_inference.api.errors import error_route, v2_error
from modelyard_inference.api.services import Services
from modelyard_inference.api.slashes import SlashRouter
from modelyard_inference.domain.records import Totals
from modelyard_inference.usecases.serving import LoadedVersion, Serving

__all__ = ["TotalsOf", "config_of", "router", "statistics_of"]

router = SlashRouter(prefix="/v2/models", tags=["triton"], route_class=error_route(v2_error), responses=v2_errors())

TotalsOf = Callable[[str, int], Totals]


@router.get("/stats")
def all_statistics(services: Services) -> dict[str, Any]:
    """Show the statistics of every version that is loaded."""
    found = [statistics_of(serving, serving.loaded, services.totals) for serving in services.served.all()]
    return {"model_stats": [one for several in found for one in several]}


@router.get("/{model}/stats")
def model_statistics(model: str, services: Services) -> dict[str, Any]:
    """Show the statistics of a model's versions."""
    serving = services.served.find(model)
    return {"model_stats": statistics_of(serving, serving.loaded, services.totals)}


@router.get("/{model}/versions/{version}/stats")
def version_statistics(model: str, version: str, services: Services) -> dict[str, Any]:
    """Show the statistics of one version."""
    serving = services.served.find(model)
    return {"model_stats": statistics_of(serving, [serving.version(version)], services.totals)}


@router.get("/{model}/config")
def model_config(model: str, services: Services) -> dict[str, Any]:
    """Show a model's configuration."""
    serving = services.served.find(model)
    return config_of(serving, serving.champion)


@router.get("/{model}/versions/{version}/config")
def version_config(model: str, version: str, services: Services) -> dict[str, Any]:
    """Show the configuration of one version."""
    serving = services.served.find(model)
    return config_of(serving, serving.version(version))


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
