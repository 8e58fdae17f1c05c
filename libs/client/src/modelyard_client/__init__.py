"""Typed clients of the Modelyard APIs, and the façade for notebooks."""

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
