"""LitServe with its batching, speaking the Open Inference Protocol. Arguments: the model, a port."""

from __future__ import annotations

import sys
from typing import Any

import joblib
import litserve
import numpy as np


class Estimator(litserve.LitAPI):  # type: ignore[misc]
    """Runs what came together as one batch."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self._estimator = joblib.load(sys.argv[1])

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # it would read a type as a query parameter
        """Return the rows of the first tensor."""
        [tensor] = request["inputs"]
        return np.asarray(tensor["data"]).reshape(tensor["shape"])

    def batch(self, inputs: list[Any]) -> Any:
        """Return all rows, and how many each request has."""
        return np.concatenate(inputs), [len(rows) for rows in inputs]

    def predict(self, batch: Any) -> Any:
        """Return the labels of each request."""
        rows, counts = batch
        return np.split(self._estimator.predict(rows), np.cumsum(counts)[:-1])

    def unbatch(self, output: Any) -> Any:
        """Return the labels of each request."""
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]  # the same
        """Return the labels as the protocol has them."""
        labels = {"name": "predict", "datatype": "INT64", "shape": [len(output)], "data": output.tolist()}
        return {"model_name": "bench", "outputs": [labels]}


if __name__ == "__main__":
    api = Estimator(max_batch_size=64, batch_timeout=0.002, api_path="/v2/models/bench/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
