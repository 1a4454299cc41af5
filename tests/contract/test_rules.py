"""The rules beside the fields of proto-schemas mean the same to protovalidate, which publishers in Go, Java, TypeScript,
C++ and Python run, and to the classes that the fleet reads events with."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
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
from fleet_events.message import Event
from fleet_events.rules import Rule, Rules

pytestmark = pytest.mark.unit

IMAGE = descriptor_pb2.FileDescriptorSet.FromString(build_image())
RULES = Rules(IMAGE)
POOL = descriptor_pool.DescriptorPool()
for file in IMAGE.file:
    POOL.Add(file)
VALIDATOR = protovalidate.Validator()
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
"""The bus holds no NUL, whatever the field; see `fleet_events.text`."""
WHOLE = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def rule_of(field: FieldDescriptor) -> Rule:
    message = descriptor_pb2.DescriptorProto()
    field.containing_type.CopyToProto(message)
    return RULES.of(next(one for one in message.field if one.number == field.number))


def texts(rule: Rule) -> tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]:
    """Strings that keep the rule, and any: near misses too."""
    longest = rule.longest or 20
    if rule.permitted:
        good: st.SearchStrategy[str] = st.sampled_from(rule.permitted)
    elif rule.pattern:
        good = st.from_regex(
            rule.pattern[1:-1], fullmatch=True, alphabet=st.characters(max_codepoint=126, min_codepoint=9)
        )
        good = good.filter(lambda text: len(text) <= longest or rule.longest is None)
    else:
        good = st.text(
            st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=min(longest, 20)
        )
    spoiled = good.flatmap(lambda text: st.sampled_from(["", f"{text}\n", f" {text}", text.upper(), f"{text}é١"]))
    return good, st.one_of(TEXT, spoiled, st.just("ü" * (longest + 1)), st.just("ü" * longest))


def numbers(kind: str, rule: Rule) -> tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]:
    if kind == "double":
        low, high = rule.gte if rule.gte is not None else -1e9, rule.lte if rule.lte is not None else 1e9
        edges = [
            low,
            high,
            math.nextafter(low, -math.inf),
            math.nextafter(high, math.inf),
            math.inf,
            -math.inf,
            math.nan,
        ]
        return st.floats(low, high), st.sampled_from([0.0, -0.0, *edges])
    bottom, top = WHOLE[kind]
    first = bottom if rule.gte is None else int(rule.gte)
    last = top if rule.lte is None else int(rule.lte)
    near = [one for one in (0, first, last, first - 1, last + 1) if bottom <= one <= top]
    return st.integers(first, last), st.sampled_from(near)


def values(field: FieldDescriptor, rule: Rule) -> tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]:
    """What keeps the rule of one value, and what may break it."""
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
            return moments, moments
        inner = messages(field.message_type)
        return inner, inner
    kind = {
        FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_BOOL: "bool",
        FieldDescriptor.TYPE_DOUBLE: "double",
        FieldDescriptor.TYPE_INT32: "int32",
        FieldDescriptor.TYPE_INT64: "int64",
    }[field.type]
    if kind == "bool":
        return st.booleans(), st.booleans()
    return texts(rule) if kind == "string" else numbers(kind, rule)


@st.composite
def messages(draw: Callable[[st.SearchStrategy[Any]], Any], descriptor: Descriptor) -> Any:
    """Messages of a type, most of them fit, each now and then with a value that may break its field's rule."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        rule = rule_of(field)
        if draw(st.integers(0, 9)) > (9 if rule.required else 5):
            continue
        spoil = draw(st.integers(0, 29)) == 0
        if rule.required and spoil and draw(st.booleans()):
            continue
        if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            inside = values(value, Rule())[spoil and value.type == FieldDescriptor.TYPE_DOUBLE]
            getattr(message, field.name).update(draw(st.dictionaries(TEXT, inside, max_size=2)))
        elif field.is_repeated:
            good, any_ = values(field, rule.items or Rule())
            few = st.lists(good, max_size=min(2, rule.longest or 2))
            many = good.map(lambda one, most=rule.longest or 2: [one] * (most + 1))  # type: ignore[misc]
            getattr(message, field.name).extend(draw(st.one_of(many, st.lists(any_, max_size=2)) if spoil else few))
        else:
            drawn = draw(values(field, rule)[spoil])
            if field.message_type is None:
                setattr(message, field.name, drawn)
            elif isinstance(drawn, datetime):
                getattr(message, field.name).FromDatetime(drawn)
            else:
                getattr(message, field.name).CopyFrom(drawn)
    return message


def refused_by_protovalidate(message: Any) -> set[str]:
    found = [violation.proto.field for violation in VALIDATOR.collect_violations(message)]
    return {to_camel(path.elements[0].field_name) for path in found if path is not None}


def refused_by_us(event: type[Event], body: bytes) -> set[str]:
    try:
        event.from_protobuf(body)
    except ValidationError as error:
        return {str(fault["loc"][0]) for fault in error.errors()}
    return set()


@pytest.mark.parametrize("event", v1.EVENTS, ids=lambda event: event.__name__)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_protovalidate_refuses_the_fields_that_we_refuse_and_no_others(event: type[Event], data: st.DataObject) -> None:
    message = data.draw(messages(POOL.FindMessageTypeByName(event.type_name)))
    assert refused_by_us(event, message.SerializeToString()) == refused_by_protovalidate(message)
