"""How the endpoints get what wiring made."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from modelyard_inference.api.services import InferenceServices

__all__ = ["Services"]


def _services(request: Request) -> InferenceServices:
    services: InferenceServices = request.app.state.inference
    return services


Services = Annotated[InferenceServices, Depends(_services)]
