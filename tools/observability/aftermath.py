"""What a demo that goes well does not have: an operator, a schedule, somebody to approve, late answers, a rollback.

Dashboards and alerts ask for all of it, and only what has happened proves that they ask rightly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
from modelyard_cli.embedded.layout import Layout
from modelyard_client import InferenceClient, RegistryClient
from modelyard_common.testing import free_port, running
from modelyard_common.testing.api_server import ApiServer, kubeconfig_of
from modelyard_inference.api.grpc import open_inference_pb2 as pb

__all__ = ["OPERATED", "Operated", "answer_late", "operated", "roll_back"]

OPERATED = "electricity-weekly"
"""The model that comes as an object of Kubernetes."""
_PLURAL = "managedmodels"
_LATE_CALLS = 3
_TOO_SHORT_US = 1
"""Microseconds: over before a model can be asked."""


class Operated:
    """A Kubernetes, in memory and on a socket, that an operator as a process follows."""

    def __init__(self, server: ApiServer, port: int) -> None:
        self._server = server
        self.port = port

    def apply(self, like: str, registry_url: str) -> None:
        """Create an object for a model that learns from the data of another, by the clock, and waits for approval."""
        registry = RegistryClient(registry_url)
        spec = registry.model(like).spec
        registry.close()
        spec |= {
            "train": spec["train"] | {"when": [{"cron": "0 3 * * 1"}]},
            "rollout": {"promote": "manual"},
            "gate": [],
        }
        metadata = {"name": OPERATED}
        document = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ManagedModel", "metadata": metadata, "spec": spec}
        self._server.create(_PLURAL, document)


@contextmanager
def operated(home: Path, layout: Layout) -> Iterator[Operated]:
    """Run the operator beside a platform, which may come later."""
    server, port = ApiServer(), free_port()
    with running(server.app) as url:
        told = {
            "PORT": str(port),
            "KUBECONFIG": str(kubeconfig_of(home, url)),
            "RESYNC_S": "1",
            "WATCH_S": "1",
            "LEASE_S": "3",
            "DRAIN_S": "0",
            **{f"{peer.upper()}_URL": layout.url(peer) for peer in ("registry", "training", "drift", "inference")},
        }
        environment = os.environ | {f"MODELYARD_OPERATOR_{name}": value for name, value in told.items()}
        command = [sys.executable, "-m", "modelyard_operator.main"]
        with (home / "operator.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield Operated(server, port)
        finally:
            process.terminate()
            process.wait(30)


def roll_back(layout: Layout, model: str) -> None:
    """Return to the champion before, as a person does. Raise CalledProcessError when that is refused."""
    where = ("--data-dir", str(layout.home.parent), "--port-base", str(layout.port_base))
    command = [sys.executable, "-m", "modelyard_cli.main", *where, "rollback", model, "-m", "to see what it looks like"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def answer_late(layout: Layout, model: str) -> None:
    """Ask over HTTP and gRPC for answers within no time, which are errors of ours. Raise ValueError if one is not."""
    client = InferenceClient(layout.url("inference"))
    tensors = [_blank(one.name, one.datatype) for one in client.metadata(model).inputs]
    client.close()
    body = {"inputs": tensors, "parameters": {"timeout": _TOO_SHORT_US}}
    codes = set()
    with (
        httpx.Client(base_url=layout.url("inference"), trust_env=False) as http,
        grpc.insecure_channel(f"127.0.0.1:{layout.port('inference-grpc')}") as channel,
    ):
        for _ in range(_LATE_CALLS):
            codes.add(http.post(f"/v2/models/{model}/infer", json=body).status_code)
            codes.add(_call(channel, model, tensors))
    if codes != {httpx.codes.GATEWAY_TIMEOUT, grpc.StatusCode.DEADLINE_EXCEEDED}:
        raise ValueError(f"calls that had no time ended as {codes}: {json.dumps(body)[:200]}")


def _blank(name: str, datatype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1], "data": ["a" if datatype == "BYTES" else 0]}


def _call(channel: grpc.Channel, model: str, tensors: list[dict[str, Any]]) -> grpc.StatusCode:
    field = {"BYTES": "bytes_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}
    request = pb.ModelInferRequest(
        model_name=model, parameters={"timeout": pb.InferParameter(int64_param=_TOO_SHORT_US)}
    )
    for one in tensors:
        values = [value.encode() if isinstance(value, str) else value for value in one["data"]]
        contents = pb.InferTensorContents(**{field[one["datatype"]]: values})
        request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"], contents=contents)
    ask = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    try:
        ask(request, timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
