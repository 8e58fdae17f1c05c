"""KServe's ModelServer with the estimator in a custom model, as its guide shows. Arguments: the model, two ports."""

from __future__ import annotations

import sys
from typing import Any

import joblib
from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response


class Estimator(Model):  # type: ignore[misc]
    """Answers the rows of the first tensor."""

    def __init__(self, path: str) -> None:
        super().__init__("bench")
        self._estimator = joblib.load(path)
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Return the labels."""
        return get_predict_response(payload, self._estimator.predict(payload.inputs[0].as_numpy()), self.name)


if __name__ == "__main__":
    server = ModelServer(
        http_port=int(sys.argv[2]), grpc_port=int(sys.argv[3]), workers=1, enable_latency_logging=False
    )
    server.start([Estimator(sys.argv[1])])
