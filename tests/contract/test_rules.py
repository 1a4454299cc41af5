"""The rules beside the fields of proto-schemas mean the same to protovalidate, which publishers in Go, Java, TypeScript,
C++ and Python run, and to the classes that the fleet reads events with."""

import math
import re
from functools import cache
from typing import Any

import protovalidate
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from fleet_events import v1
from fleet_events.codegen import build_image
from fleet_events.message import Event, Message
from fleet_events.protobuf import to_protojson
from fleet_events.rules import Rule, Rules

pytestmark = pytest.mark.unit

IMAGE = descriptor_pb2.FileDescriptorSet.FromString(build_image())
RULES = Rules(IMAGE)
POOL = descriptor_pool.DescriptorPool()
for file in IMAGE.file:
    POOL.Add(file)
VALIDATOR = protovalidate.Validator()
KINDS = [
    one
    for one in vars(v1).values()
    if isinstance(one, type) and issubclass(one, Message) and one not in (Event, Message)
]
"""Events, and the values within them."""
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
"""The bus holds no NUL, whatever the field; see `fleet_events.text`."""
SAMPLES = ("a", "0" * 64, "0" * 16, "s3://bucket/key", "1.0.0")
"""For every pattern of the contract one that it lets pass."""
SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
}
WHOLE = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


@cache
def rule_of(field: FieldDescriptor) -> Rule:
    message = descriptor_pb2.DescriptorProto()
    field.containing_type.CopyToProto(message)
    return RULES.of(next(one for one in message.field if one.number == field.number))


def texts(rule: Rule) -> st.SearchStrategy[str]:
    """Strings at the edges of a rule, and others."""
    longest = rule.longest or 20
    fit = st.sampled_from(rule.permitted or [text for text in SAMPLES if matches(rule, text)])
    spoiled = fit.flatmap(
        lambda text: st.sampled_from([text, f"{text}\n", f" {text}", text.upper(), f"{text}é١", text[1:]])
    )
    if rule.pattern:
        spoiled |= st.from_regex(rule.pattern[1:-1], fullmatch=True, alphabet=st.characters(max_codepoint=126))
    return spoiled | TEXT | st.sampled_from(["", "ü" * longest, "ü" * (longest + 1)])


def matches(rule: Rule, text: str) -> bool:
    return not rule.pattern or re.fullmatch(rule.pattern, text) is not None


def numbers(kind: str, rule: Rule) -> st.SearchStrategy[Any]:
    """Numbers at the edges of a rule, and others."""
    bottom, top = WHOLE.get(kind, (-1e300, 1e300))
    first = bottom if rule.gte is None else rule.gte
    last = top if rule.lte is None else rule.lte
    if kind == "double":
        beyond = [math.nextafter(first, -math.inf), math.nextafter(last, math.inf), math.inf, -math.inf, math.nan]
        return st.floats() | st.sampled_from([0.0, -0.0, first, last, *beyond])
    near = [int(one) for one in (0, first, last, first - 1, last + 1) if bottom <= one <= top]
    return st.integers(int(bottom), int(top)) | st.sampled_from(near)


def anything(field: FieldDescriptor, rule: Rule) -> st.SearchStrategy[Any]:
    """Single values for a field, those that break its rule among them."""
    if field.message_type is not None:
        return st.just(smallest(field.message_type))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    return texts(rule) if field.type == FieldDescriptor.TYPE_STRING else numbers(SCALARS[field.type], rule)


def fitting(field: FieldDescriptor, rule: Rule) -> Any:
    """One value that keeps the rule."""
    if field.message_type is not None:
        return smallest(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return next(text for text in (*rule.permitted, *SAMPLES) if matches(rule, text))
    return int(rule.gte or 0) if SCALARS.get(field.type) != "double" else rule.gte or 0.0


def smallest(descriptor: Descriptor) -> Any:
    """The message with nothing but what it needs."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if (rule := rule_of(field)).required:
            give(message, field, fitting(field, rule))
    return message


def give(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.message_type is None:
        setattr(message, field.name, value)
    else:
        getattr(message, field.name).CopyFrom(value)


def probe(message: Any, field: FieldDescriptor, data: st.DataObject) -> None:
    """Gives the field any value, or none."""
    rule = rule_of(field)
    message.ClearField(field.name)
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = anything(field.message_type.fields_by_name["value"], Rule())
        getattr(message, field.name).update(data.draw(st.dictionaries(TEXT, value, max_size=2)))
    elif field.is_repeated:
        items, most = rule.items or Rule(), rule.longest or 1
        many = [[fitting(field, items)] * size for size in (most, most + 1)]
        several = st.sampled_from(many) | st.lists(anything(field, items), max_size=2)
        getattr(message, field.name).extend(data.draw(several))
    elif data.draw(st.integers(0, 9)):
        give(message, field, data.draw(anything(field, rule)))


def refused_by_protovalidate(message: Any) -> set[str]:
    found = [violation.proto.field for violation in VALIDATOR.collect_violations(message)]
    return {to_camel(path.elements[0].field_name) for path in found if path is not None}


def refused_by_us(kind: type[Message], body: bytes) -> set[str]:
    try:
        kind.model_validate_json(to_protojson(f"lorafleet.events.v1.{kind.__name__}", body))
    except ValidationError as error:
        return {str(fault["loc"][0]) for fault in error.errors()}
    return set()


FIELDS = [(kind, name) for kind in KINDS for name in kind.model_fields]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda one: getattr(one, "__name__", one))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_protovalidate_refuses_a_field_exactly_where_we_refuse_it(
    kind: type[Message], name: str, data: st.DataObject
) -> None:
    descriptor = POOL.FindMessageTypeByName(f"lorafleet.events.v1.{kind.__name__}")
    message = smallest(descriptor)
    assert not refused_by_protovalidate(message)
    probe(message, descriptor.fields_by_name[name], data)
    assert refused_by_us(kind, message.SerializeToString()) == refused_by_protovalidate(message) <= {to_camel(name)}
