"""Makes what answers all that is not hot: metadata, the repository, explanations, statistics, documents."""

from __future__ import annotations

import sys
from typing import Any, cast

# FastAPI loads the API of pydantic 1, 1.5 MiB, to ask of each model whether it is made of it. Where there is none, none
# is: it knows that answer as well.
cast("dict[str, Any]", sys.modules).setdefault("pydantic.v1", None)

from fastapi import FastAPI  # noqa: E402
from modelyard_common.app import framework  # noqa: E402
from modelyard_common.edge import Edge  # noqa: E402

from modelyard_inference.api.rest import admin, explain, repository, scoring, triton, v1, v2  # noqa: E402
from modelyard_inference.api.rest.openapi import typed_openapi  # noqa: E402
from modelyard_inference.api.services import InferenceServices  # noqa: E402
from modelyard_inference.settings import InferenceSettings  # noqa: E402

__all__ = ["rest"]

_ROUTERS = (repository.router, triton.router, v2.router, scoring.router, admin.router, explain.router, v1.router)


def rest(settings: InferenceSettings, edge: Edge, services: InferenceServices) -> FastAPI:
    """Return it, within an edge."""
    app = framework("inference", settings, edge, _ROUTERS, {"inference": services})
    app.openapi = typed_openapi(app, services.served)  # type: ignore[method-assign]  # FastAPI's way to extend it
    return app
