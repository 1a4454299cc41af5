"""Binary protobuf bodies, read through the descriptors that buf built (image.binpb)."""

from functools import cache
from importlib.resources import files

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

__all__ = ["descriptor_set", "to_protojson"]


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    """Every file of proto-schemas, compiled."""
    return descriptor_pb2.FileDescriptorSet.FromString(files("fleet_events").joinpath("image.binpb").read_bytes())


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_set().file:
        pool.Add(file)
    return pool


def to_protojson(type_name: str, body: bytes) -> str:
    """Binary message → ProtoJSON; raises `ValueError` when the bytes are not that message."""
    message = message_factory.GetMessageClass(_pool().FindMessageTypeByName(type_name))()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(f"body is not a binary {type_name}: {error}") from error
    return json_format.MessageToJson(message)
