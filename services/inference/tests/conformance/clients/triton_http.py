"""``tritonclient.http``: the strictest client, binary unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
from harness import Stage, expect, run
from tritonclient.utils import InferenceServerException


def inputs(*, binary: bool = True, rows: int = 1, load: type = np.float32) -> list[Any]:
    given = {
        "load": np.array([0.7] * rows, dtype=load),
        "price": np.array([0.2] * rows, dtype=np.float64),
        "day": np.array(["mon"] * rows, dtype=object),
    }
    tensors = []
    for name, values in given.items():
        datatype = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"}[str(values.dtype)]
        tensor = triton.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    return tensors


def client(stage: Stage) -> Any:
    return triton.InferenceServerClient(stage.http)


def expect_one(result: Any, rows: int = 1) -> None:
    expect(result.as_numpy("predict").tolist() == [1] * rows, result.get_response())


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except InferenceServerException as exc:
        return str(exc.message())
    raise AssertionError("it was not refused")


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
    expect("binary_tensor_data" in client(stage).get_server_metadata()["extensions"])


def get_model_metadata(stage: Stage) -> None:
    metadata = client(stage).get_model_metadata("power", "1")
    expect([one["name"] for one in metadata["inputs"]] == ["load", "price", "day"], metadata)


def get_model_repository_index(stage: Stage) -> None:
    [entry] = client(stage).get_model_repository_index()
    expect((entry["name"], entry["version"], entry["state"]) == ("power", "1", "READY"), entry)


def infer_with_binary_tensors(stage: Stage) -> None:
    result = client(stage).infer("power", inputs())
    expect_one(result)
    expect(abs(result.as_numpy("predict_proba").sum() - 1) < 1e-5)
    expect("binary_data_size" in result.get_output("predict")["parameters"], "the default is binary")


def infer_with_JSON_tensors(stage: Stage) -> None:
    wanted = [triton.InferRequestedOutput("predict", binary_data=False)]
    result = client(stage).infer("power", inputs(binary=False), outputs=wanted)
    expect_one(result)
    expect(result.get_output("predict_proba") is None)


def infer_with_half_floats(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(load=np.float16)))


def infer_many_rows(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(rows=1000)), 1000)


def infer_by_version(stage: Stage) -> None:
    result = client(stage).infer("power", inputs(), model_version="1", request_id="mine")
    expect((result.get_response()["id"], result.get_response()["model_version"]) == ("mine", "1"))


def infer_by_alias(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), model_version="@champion"))


def infer_with_parameters(stage: Stage) -> None:
    parameters = {"routing_key": "me", "event_time": "2026-01-01T00:00:00Z"}
    expect_one(client(stage).infer("power", inputs(), parameters=parameters, timeout=5_000_000))


def infer_with_priority_and_custom_parameters(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), priority=1, parameters={"x": 1, "tenant": "a"}))
    expect_one(client(stage).infer("power", inputs(), headers={"x-tenant": "a"}))


def infer_with_a_gzip_body(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), request_compression_algorithm="gzip"))


def infer_with_a_deflate_body(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), request_compression_algorithm="deflate"))


def infer_accepting_a_gzip_response(stage: Stage) -> None:
    expect_one(client(stage).infer("power", inputs(), response_compression_algorithm="gzip"))


def async_infer(stage: Stage) -> None:
    one = client(stage)
    for pending in [one.async_infer("power", inputs()) for _ in range(4)]:
        expect_one(pending.get_result())


def errors_are_read(stage: Stage) -> None:
    expect("nobody" in refused(lambda: client(stage).infer("nobody", inputs())))
    expect("load" in refused(lambda: client(stage).infer("power", inputs()[1:])))


def unload_and_load_model(stage: Stage) -> None:
    one = client(stage)
    one.unload_model("power")
    expect(not one.is_model_ready("power"))
    one.load_model("power")
    expect(one.is_model_ready("power"))


def get_model_config(stage: Stage) -> None:
    config = client(stage).get_model_config("power", "1")
    expect(config["input"][2] == {"name": "day", "data_type": "TYPE_STRING", "dims": [-1]}, config)


def get_inference_statistics(stage: Stage) -> None:
    one = client(stage)
    before = one.get_inference_statistics("power")["model_stats"][0]["inference_count"]
    one.infer("power", inputs(rows=3))
    [after] = one.get_inference_statistics()["model_stats"]
    expect(after["inference_count"] == before + 3 and after["inference_stats"]["success"]["ns"] > 0, after)


def not_offered_sequences(stage: Stage) -> None:
    says = refused(lambda: client(stage).infer("power", inputs(), sequence_id=7, sequence_start=True))
    expect("there are no sequences here" in says, says)


def not_offered_shared_memory(stage: Stage) -> None:
    expect("answered here" in refused(client(stage).get_system_shared_memory_status))


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
            infer_with_binary_tensors,
            infer_with_JSON_tensors,
            infer_with_half_floats,
            infer_many_rows,
            infer_by_version,
            infer_by_alias,
            infer_with_parameters,
            infer_with_priority_and_custom_parameters,
            infer_with_a_gzip_body,
            infer_with_a_deflate_body,
            infer_accepting_a_gzip_response,
            async_infer,
            errors_are_read,
            unload_and_load_model,
            get_model_config,
            get_inference_statistics,
            not_offered_sequences,
            not_offered_shared_memory,
        ]
    )
