"""Typed clients of the Modelyard APIs, and the façade for notebooks.

Each is loaded when it is asked for: a service talks to one or two of the others, and has no use for the shapes of all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard_client.drift import DriftClient
    from modelyard_client.inference import InferenceClient, Prediction, Scored
    from modelyard_client.modelyard import Model, Modelyard
    from modelyard_client.registry import RegistryClient
    from modelyard_client.training import TrainingClient

__all__ = [
    "DriftClient",
    "InferenceClient",
    "Model",
    "Modelyard",
    "Prediction",
    "RegistryClient",
    "Scored",
    "TrainingClient",
]

_HOMES = {
    "DriftClient": "drift",
    "InferenceClient": "inference",
    "Model": "modelyard",
    "Modelyard": "modelyard",
    "Prediction": "inference",
    "RegistryClient": "registry",
    "Scored": "inference",
    "TrainingClient": "training",
}


def __getattr__(name: str) -> Any:
    """Return what this package offers under a name (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return what there is, also what is not loaded yet."""
    return sorted({*globals(), *__all__})
