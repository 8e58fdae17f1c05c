"""Reflection, by which tools ask what this server speaks: its services, and what their messages are.

``grpc.reflection.v1`` and ``v1alpha`` have the same messages by two names; tools ask for one, the other or both.
``grpcio-reflection`` has the older one for servers of ``grpcio``, and needs that library in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha.reflection_pb2 import (
    DESCRIPTOR,
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from modelyard_inference.api.grpc.calls import Call, Method
from modelyard_inference.api.grpc.edge import read
from modelyard_inference.api.grpc.status import StatusCode

__all__ = ["REFLECTION", "ReflectionServicer"]

REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    """Return what is known, with ``grpc.reflection.v1``, which differs from the older one in its names alone."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415  # 3 MiB, for who asks

    file = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(file)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = file.package.replace("v1alpha", "v1")
    for field in (field for message in file.message_type for field in message.field if field.type_name):
        field.type_name = field.type_name.replace("v1alpha", "v1")
    for method in (method for service in file.service for method in service.method):
        method.input_type = method.input_type.replace("v1alpha", "v1")
        method.output_type = method.output_type.replace("v1alpha", "v1")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool


class ReflectionServicer:
    """Says what is served.

    Args:
        services: by their full names.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = tuple(sorted(services))

    def methods(self) -> Mapping[str, Method]:
        """Return the table of methods for the server."""
        return {f"/{name}/ServerReflectionInfo": Method(self._info, streams=True) for name in REFLECTION}

    async def _info(self, call: Call) -> None:
        while (content := await call.receive()) is not None:
            request = read(ServerReflectionRequest(), await call.unpacked(content))
            response = ServerReflectionResponse(valid_host=request.host, original_request=request)
            try:
                self._answer(request, response)
            except KeyError:
                _fail(response, StatusCode.NOT_FOUND, "there is nothing of that name")
            await call.send(response.SerializeToString())

    def _answer(self, request: ServerReflectionRequest, response: ServerReflectionResponse) -> None:
        """Raise KeyError for what there is not."""
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            found = ListServiceResponse(service=[ServiceResponse(name=name) for name in self._services])
            response.list_services_response.CopyFrom(found)
        elif asked == "file_by_filename":
            _write(response, _pool().FindFileByName(request.file_by_filename))
        elif asked == "file_containing_symbol":
            _write(response, _file_of(request.file_containing_symbol))
        elif asked == "file_containing_extension":
            extended = _pool().FindMessageTypeByName(request.file_containing_extension.containing_type)
            number = request.file_containing_extension.extension_number
            found_by_number = _pool().FindExtensionByNumber(extended, number)
            _write(response, _pool().FindFileContainingSymbol(found_by_number.full_name))
        elif asked == "all_extension_numbers_of_type":
            extended = _pool().FindMessageTypeByName(request.all_extension_numbers_of_type)
            numbers = sorted(extension.number for extension in _pool().FindAllExtensions(extended))
            of_type = ExtensionNumberResponse(base_type_name=extended.full_name, extension_number=numbers)
            response.all_extension_numbers_response.CopyFrom(of_type)
        else:
            _fail(response, StatusCode.INVALID_ARGUMENT, "message_request: is required")


def _fail(response: ServerReflectionResponse, code: StatusCode, text: str) -> None:
    response.error_response.CopyFrom(ErrorResponse(error_code=int(code), error_message=text))


def _file_of(symbol: str) -> FileDescriptor:
    """Return the file of a symbol. Raise KeyError when there is none."""
    try:
        found: FileDescriptor = _pool().FindFileContainingSymbol(symbol)
    except KeyError:  # of methods it knows nothing
        found = _pool().FindMethodByName(symbol).containing_service.file
    return found


def _write(response: ServerReflectionResponse, file: FileDescriptor) -> None:
    """Write a file and all that it needs."""
    files: dict[str, FileDescriptor] = {}
    open_files: list[FileDescriptor] = [file]
    while open_files:
        found = open_files.pop()
        if found.name not in files:
            files[found.name] = found
            open_files += found.dependencies
    response.file_descriptor_response.CopyFrom(
        FileDescriptorResponse(file_descriptor_proto=[found.serialized_pb for found in files.values()])
    )
