"""What people write first: FastAPI, pydantic, and the estimator itself. Arguments: the model, a port."""

from __future__ import annotations

import sys
from typing import Any

import joblib
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
estimator = joblib.load(sys.argv[1])


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    """A request of the Open Inference Protocol."""

    inputs: list[Tensor]


@app.post("/v2/models/bench/infer")
def infer(request: Request) -> dict[str, Any]:
    """Answer the rows of the first tensor."""
    [tensor] = request.inputs
    labels = estimator.predict(np.asarray(tensor.data).reshape(tensor.shape))
    output = {"name": "predict", "datatype": "INT64", "shape": [len(labels)], "data": labels.tolist()}
    return {"model_name": "bench", "outputs": [output]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
