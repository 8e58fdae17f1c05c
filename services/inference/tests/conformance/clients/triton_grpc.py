"""``tritonclient.grpc``: raw contents, streams with errors inside."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from harness import Stage, expect, run
from tritonclient.utils import InferenceServerException


def inputs(rows: int = 1) -> list[Any]:
    given = {
        "load": (np.array([0.7] * rows, dtype=np.float32), "FP32"),
        "price": (np.array([0.2] * rows, dtype=np.float64), "FP64"),
        "day": (np.array(["mon"] * rows, dtype=object), "BYTES"),
    }
    tensors = []
    for name, (values, datatype) in given.items():
        tensor = triton.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    return tensors


def client(stage: Stage) -> Any:
    return triton.InferenceServerClient(stage.grpc)


def expect_one(result: Any, rows: int = 1) -> None:
    expect(result.as_numpy("predict").tolist() == [1] * rows, result.get_response())


def is_server_live(stage: Stage) -> None:
    expect(client(stage).is_server_live())


def is_server_ready(stage: Stage) -> None:
    expect(client(stage).is_server_ready())


def is_model_ready(stage: Stage) -> None:
    expect(client(stage).is_model_ready("power"))
    expect(not client(stage).is_model_ready("nobody"))


def is_model_ready_by_version_and_alias(stage: Stage) -> None:
    expect(client(stage).is_model_ready("power", "1") and client(stage).is_model_ready("power", "@champion"))


def get_server_metadata(stage: Stage) -> None:
    expect("model_repository" in client(stage).get_server_metadata().extensions)


def get_model_metadata(stage: Stage) -> None:
    metadata = client(stage).get_model_metadata("power", "1", as_json=True)
    expect([one["name"] for one in metadata["inputs"]] == ["load", "price", "day"], metadata)


def get_model_repository_index(stage: Stage) -> None:
    [entry] = client(stage).get_model_repository_index().models
    expect((entry.name, entry.version, entry.state) == ("power", "1", "READY"), entry)


def infer(stage: Stage) -> None:
    result = client(stage).infer("power", inputs())
    expect_one(result)
    expect(abs(result.as_numpy("predict_proba").sum() - 1) < 1e-5)


def infer_many_rows(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(1000)), 1000)


def infer_with_gzip(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(1000), compression_algorithm="gzip"), 1000)


def infer_with_deflate(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(1000), compression_algorithm="deflate"), 1000)


def stream_infer_with_gzip(stage: Stage) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    one = client(stage)
    one.start_stream(callback=lambda result, error: answers.put((result, error)), compression_algorithm="gzip")
    one.async_stream_infer("power", inputs(1000))
    result, error = answers.get(timeout=20)
    one.stop_stream()
    expect(error is None, error)
    expect_one(result, 1000)


def infer_requested_outputs(stage: Stage) -> None:
    result = client(stage).infer("power", inputs(), outputs=[triton.InferRequestedOutput("predict_proba")])
    expect([output.name for output in result.get_response().outputs] == ["predict_proba"])


def infer_by_version(stage: Stage) -> None:
    response = client(stage).infer("power", inputs(), model_version="1", request_id="mine").get_response()
    expect((response.id, response.model_version) == ("mine", "1"))


def infer_by_alias(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), model_version="@champion"))


def infer_with_parameters(stage: Stage) -> None:
    parameters = {"routing_key": "me", "event_time": "2026-01-01T00:00:00Z"}
    expect_one(client(stage).infer("power", inputs(), parameters=parameters, timeout=5_000_000, client_timeout=20))


def infer_with_priority_and_custom_parameters(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), priority=1, parameters={"x": 1, "tenant": "a"}))
    expect_one(client(stage).infer("power", inputs(), headers={"x-tenant": "a"}))


def async_infer(stage: Stage) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    one = client(stage)
    for _ in range(4):
        one.async_infer("power", inputs(), callback=lambda result, error: answers.put((result, error)))
    for _ in range(4):
        result, error = answers.get(timeout=20)
        expect(error is None, error)
        expect_one(result)


def stream_infer(stage: Stage) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    one = client(stage)
    one.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number, model in enumerate(["power", "nobody", "power"]):
        one.async_stream_infer(model, inputs(), request_id=str(number))
    told = [answers.get(timeout=20) for _ in range(3)]
    one.stop_stream()
    expect_one(told[0][0])
    expect("nobody" in str(told[1][1]))
    expect(told[2][0].get_response().id == "2")


def stream_infer_until_the_final_response(stage: Stage) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    one = client(stage)
    one.start_stream(callback=lambda result, error: answers.put((result, error)))
    one.async_stream_infer("power", inputs(), request_id="mine", enable_empty_final_response=True)
    result, error = answers.get(timeout=20)
    one.stop_stream()
    expect(error is None, error)
    expect_one(result)
    expect(result.get_response().parameters["triton_final_response"].bool_param)
    expect(answers.empty(), "there is one response to a request")


def errors_are_read(stage: Stage) -> None:
    try:
        client(stage).infer("power", inputs()[1:])
    except InferenceServerException as exc:
        expect("load" in exc.message() and "INVALID_ARGUMENT" in exc.status(), exc)
    else:
        raise AssertionError("it was not refused")


def unload_and_load_model(stage: Stage) -> None:
    one = client(stage)
    one.unload_model("power")
    expect(not one.is_model_ready("power"))
    one.load_model("power")
    expect(one.is_model_ready("power"))


def get_model_config(stage: Stage) -> None:
    config = client(stage).get_model_config("power", "1", as_json=True)["config"]
    expect(config["input"][2] == {"name": "day", "data_type": "TYPE_STRING", "dims": ["-1"]}, config)


def get_inference_statistics(stage: Stage) -> None:
    one = client(stage)
    before = one.get_inference_statistics("power").model_stats[0].inference_count
    one.infer("power", inputs(3))
    [after] = one.get_inference_statistics().model_stats
    expect(after.inference_count == before + 3 and after.inference_stats.success.ns > 0, after)


def not_offered_sequences(stage: Stage) -> None:
    try:
        client(stage).infer("power", inputs(), sequence_id=7, sequence_start=True)
    except InferenceServerException as exc:
        expect("there are no sequences here" in exc.message() and "INVALID_ARGUMENT" in exc.status(), exc)
    else:
        raise AssertionError("it was not refused")


def not_offered_shared_memory(stage: Stage) -> None:
    try:
        client(stage).get_system_shared_memory_status()
    except InferenceServerException as exc:
        expect("UNIMPLEMENTED" in exc.status(), exc)
    else:
        raise AssertionError("it was not refused")


if __name__ == "__main__":
    run(
        [
            is_server_live,
            is_server_ready,
            is_model_ready,
            is_model_ready_by_version_and_alias,
            get_server_metadata,
            get_model_metadata,
            get_model_repository_index,
            infer,
            infer_many_rows,
            infer_with_gzip,
            infer_with_deflate,
            stream_infer_with_gzip,
            infer_requested_outputs,
            infer_by_version,
            infer_by_alias,
            infer_with_parameters,
            infer_with_priority_and_custom_parameters,
            async_infer,
            stream_infer,
            stream_infer_until_the_final_response,
            errors_are_read,
            unload_and_load_model,
            get_model_config,
            get_inference_statistics,
            not_offered_sequences,
            not_offered_shared_memory,
        ]
    )
