"""Binary protobuf bodies, read through the descriptors that buf built (image.binpb)."""

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

__all__ = ["MAX_ELEMENTS", "descriptor_set", "to_protojson"]

MAX_ELEMENTS = 10_000
"""Values in a message and the messages within it. Two bytes make an empty one, and each costs as much as a full one."""


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
    if _exceeds(message, MAX_ELEMENTS):
        raise ValueError(f"body holds more than {MAX_ELEMENTS} values; put the content in the object store")
    return json_format.MessageToJson(message, indent=None)


def _exceeds(message: Message, limit: int) -> bool:
    """Whether the message has more values than the limit; stops counting there. The parser bounds the depth (100)."""
    waiting, counted = [message], 0
    while waiting and counted <= limit:
        for field, value in waiting.pop().ListFields():
            counted += len(value) if field.is_repeated else 1
            if counted <= limit:
                waiting += _messages(field, value)
    return counted > limit


def _messages(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.message_type is None:
        return []
    if not field.is_repeated:
        return [value]
    if field.message_type.GetOptions().map_entry:
        return [one for one in value.values() if isinstance(one, Message)]
    return list(value)
