"""What MLServer's users have: its codecs for data frames, its batch command, its gRPC stubs and converters."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
from harness import Stage, expect, run
from mlserver.codecs import PandasCodec
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceResponse

FRAME = pd.DataFrame({"load": [0.7, -3.0], "price": [0.2, 0.1], "day": ["mon", "tue"]})


def request(*, texts: bool = False) -> Any:
    return PandasCodec.encode_request(FRAME, use_bytes=not texts)


def expect_both(response: Any) -> None:
    found = {output.name: output for output in response.outputs}
    expect(list(found["predict"].data) == [1, 0], response)


def infer_a_data_frame_over_REST(stage: Stage) -> None:
    body = request(texts=True).model_dump_json(exclude_none=True).encode()
    with urllib.request.urlopen(f"{stage.url}/v2/models/power/infer", body, timeout=20) as answer:
        expect_both(InferenceResponse.model_validate_json(answer.read()))


def batch(stage: Stage, *options: str) -> None:
    """Have the batch command ask six times, and look at what it wrote."""
    tensors = [
        {"name": "load", "shape": [1], "datatype": "FP32", "data": [0.7]},
        {"name": "price", "shape": [1], "datatype": "FP32", "data": [0.2]},
        {"name": "day", "shape": [1], "datatype": "BYTES", "data": ["mon"]},
    ]
    with tempfile.TemporaryDirectory() as name:
        source, sink = Path(name) / "in.txt", Path(name) / "out.txt"
        source.write_text("".join(json.dumps({"inputs": tensors}) + "\n" for _ in range(6)))
        command = [str(Path(sys.executable).with_name("mlserver")), "infer", "--url", stage.http, "-m", "power"]
        files = ["-i", str(source), "-o", str(sink), "-w", "2"]
        done = subprocess.run([*command, *files, *options], capture_output=True, text=True, check=False, timeout=60)
        expect(done.returncode == 0, done.stderr[-500:])
        answers = [json.loads(line) for line in sink.read_text().splitlines()]
    expect(len(answers) == 6, answers)
    for answer in answers:
        [labels] = [output["data"] for output in answer["outputs"] if output["name"] == "predict"]
        expect(labels == [1], answer)


def infer_by_the_batch_command(stage: Stage) -> None:
    batch(stage)


def infer_by_the_batch_command_in_binary(stage: Stage) -> None:
    batch(stage, "--binary-data")


def infer_by_the_batch_command_in_micro_batches(stage: Stage) -> None:
    batch(stage, "--batch-size", "3")


def stub(stage: Stage) -> Any:
    return GRPCInferenceServiceStub(grpc.insecure_channel(stage.grpc))


def gRPC_health_and_metadata(stage: Stage) -> None:
    one = stub(stage)
    expect(one.ServerLive(pb.ServerLiveRequest()).live and one.ServerReady(pb.ServerReadyRequest()).ready)
    expect(one.ModelReady(pb.ModelReadyRequest(name="power", version="1")).ready)
    expect([tensor.name for tensor in one.ModelMetadata(pb.ModelMetadataRequest(name="power")).inputs] == list(FRAME))


def gRPC_infer_with_typed_contents(stage: Stage) -> None:
    message = ModelInferRequestConverter.from_types(request(), model_name="power")
    expect_both(ModelInferResponseConverter.to_types(stub(stage).ModelInfer(message)))


def gRPC_infer_with_raw_contents(stage: Stage) -> None:
    message = ModelInferRequestConverter.from_types(request(), model_name="power", use_raw=True)
    expect_both(ModelInferResponseConverter.to_types(stub(stage).ModelInfer(message)))


def gRPC_repository(stage: Stage) -> None:
    one = stub(stage)
    one.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="power"))
    [entry] = one.RepositoryIndex(pb.RepositoryIndexRequest()).models
    expect(entry.state == "UNAVAILABLE", entry)
    one.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="power"))
    [entry] = one.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
    expect((entry.name, entry.state) == ("power", "READY"), entry)


if __name__ == "__main__":
    run(
        [
            infer_a_data_frame_over_REST,
            infer_by_the_batch_command,
            infer_by_the_batch_command_in_binary,
            infer_by_the_batch_command_in_micro_batches,
            gRPC_health_and_metadata,
            gRPC_infer_with_typed_contents,
            gRPC_infer_with_raw_contents,
            gRPC_repository,
        ]
    )
