"""MLflow's own scoring client, which speaks to ``mlflow models serve``."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from harness import Stage, expect, run
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

FRAME = pd.DataFrame({"load": [0.7, -3.0], "price": [0.2, 0.1], "day": ["mon", "tue"]})


def client(stage: Stage) -> Any:
    host, _, port = stage.http.partition(":")
    return ScoringServerClient(host, int(port))


def ping(stage: Stage) -> None:
    client(stage).ping()


def get_version(stage: Stage) -> None:
    expect(client(stage).get_version().count(".") == 2)


def wait_server_ready(stage: Stage) -> None:
    client(stage).wait_server_ready(timeout=20)


def invoke_with_a_data_frame(stage: Stage) -> None:
    frame = client(stage).invoke(FRAME).get_predictions()
    expect(frame.to_numpy().ravel().tolist() == [1, 0], frame)


def invoke_with_columns(stage: Stage) -> None:
    # As text: the client cannot write a dict of arrays (it iterates over its keys).
    columns = {"inputs": {"load": [0.7], "price": [0.2], "day": ["mon"]}}
    answer = client(stage).invoke(json.dumps(columns)).get_predictions()
    expect(answer.to_numpy().ravel().tolist() == [1], answer)


def invoke_with_rows(stage: Stage) -> None:
    answer = client(stage).invoke(FRAME.to_dict("records")).get_predictions()
    expect(answer.to_numpy().ravel().tolist() == [1, 0], answer)


def invoke_with_missing_values(stage: Stage) -> None:
    answer = client(stage).invoke(FRAME.assign(price=float("nan"))).get_predictions()
    expect(answer.to_numpy().ravel().tolist() == [1, 0], answer)


def invoke_with_params(stage: Stage) -> None:
    answer = client(stage).invoke(FRAME, params={"routing_key": "me"}).get_predictions()
    expect(answer.to_numpy().ravel().tolist() == [1, 0], answer)


def invoke_with_columns_that_are_no_features(stage: Stage) -> None:
    answer = client(stage).invoke(FRAME.assign(x=1)).get_predictions()
    expect(answer.to_numpy().ravel().tolist() == [1, 0], answer)


def invoke_with_unknown_params(stage: Stage) -> None:
    answer = client(stage).invoke(FRAME, params={"temperature": 0.5}).get_predictions()
    expect(answer.to_numpy().ravel().tolist() == [1, 0], answer)


def errors_are_read(stage: Stage) -> None:
    try:
        client(stage).invoke(FRAME.drop(columns="load"))
    except Exception as exc:
        expect("error code 400" in str(exc) and "INVALID_PARAMETER_VALUE" in str(exc), exc)
    else:
        raise AssertionError("it was not refused")


if __name__ == "__main__":
    run(
        [
            ping,
            get_version,
            wait_server_ready,
            invoke_with_a_data_frame,
            invoke_with_columns,
            invoke_with_rows,
            invoke_with_missing_values,
            invoke_with_params,
            invoke_with_columns_that_are_no_features,
            invoke_with_unknown_params,
            errors_are_read,
        ]
    )
