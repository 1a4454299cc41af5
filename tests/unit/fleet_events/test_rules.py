"""A rule of the contract that the generated classes would not enforce is refused when they are generated."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from fleet_events.codegen import build_image
from fleet_events.named_types import NamedTypes
from fleet_events.rules import Rule, Rules

pytestmark = pytest.mark.unit

Field = descriptor_pb2.FieldDescriptorProto
IMAGE = descriptor_pb2.FileDescriptorSet.FromString(build_image())


def field(kind: "Field.Type.ValueType", rule: str, *, repeated: bool = False, optional: bool = False) -> Field:
    """A field `it` with an option as a .proto file gives it."""
    pool = descriptor_pool.DescriptorPool()
    for file in IMAGE.file:
        pool.Add(file)
    options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))()
    text_format.Parse(f"[buf.validate.field] {{ {rule} }}", options, descriptor_pool=pool)
    made = Field(name="it", type=kind, proto3_optional=optional)
    made.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    made.options.MergeFromString(options.SerializeToString())
    return made


def test_the_known_rules_are_read_as_they_stand() -> None:
    rules = Rules(IMAGE)
    given = 'required: true string { pattern: "^a+$" max_len: 5 }'
    assert rules.of(field(Field.TYPE_STRING, given)) == Rule(required=True, pattern="^a+$", longest=5)
    given = 'ignore: IGNORE_IF_ZERO_VALUE string { in: ["b", "a"] }'
    assert rules.of(field(Field.TYPE_STRING, given)) == Rule(permitted=("b", "a"))
    given = "repeated { max_items: 3 items { int32 { gte: 1 lte: 4 } } }"
    assert rules.of(field(Field.TYPE_INT32, given, repeated=True)) == Rule(longest=3, items=Rule(gte=1, lte=4))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (field(Field.TYPE_STRING, 'string { prefix: "s3" }'), "it: the rule prefix is not known"),
        (field(Field.TYPE_STRING, 'cel { id: "x" expression: "true" }'), "it: the rule cel is not known"),
        (field(Field.TYPE_STRING, 'required: true string { pattern: "a|b" }'), "write it from \\^ to \\$"),
        (field(Field.TYPE_STRING, 'string { in: ["a"] }'), "protobuf leaves a zero out"),
        (field(Field.TYPE_INT32, "int32 { gte: 1 }"), "protobuf leaves a zero out"),
        (field(Field.TYPE_INT32, "required: true int32 { gte: 0 }"), "a required number needs a gte above zero"),
        (field(Field.TYPE_DOUBLE, "double { gte: 0 }"), "neither NaN nor infinity"),
        (field(Field.TYPE_DOUBLE, "repeated { max_items: 2 }", repeated=True), "neither NaN nor infinity"),
        (field(Field.TYPE_STRING, "required: true", repeated=True), "not known for a repeated field"),
        (field(Field.TYPE_STRING, "repeated { unique: true }", repeated=True), "the rule unique is not known"),
        (field(Field.TYPE_STRING, 'ignore: IGNORE_ALWAYS string { in: ["a"] }'), "can be ignored"),
        (field(Field.TYPE_STRING, "ignore: IGNORE_IF_ZERO_VALUE", optional=True), "can be ignored"),
    ],
)
def test_a_rule_that_means_something_else_to_the_classes_is_refused_by_its_field(made: Field, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rules(IMAGE).of(made)


def test_a_name_never_stands_for_two_sets_or_two_patterns() -> None:
    types = NamedTypes()
    assert types.name("A", "method", Rule(permitted=("lora", "dora")), "How.") == "Method"
    assert types.name("B", "method", Rule(permitted=("lora", "dora")), "") == "Method"
    with pytest.raises(ValueError, match=r"C\.method: Method is \('lora', 'dora'\) elsewhere"):
        types.name("C", "method", Rule(permitted=("lora",)), "")
    assert types.name("A", "domain", Rule(pattern="^[a-z]+$"), "") == "DomainName"
    with pytest.raises(ValueError, match=r"B\.domain: DomainName is \^\[a-z\]\+\$ elsewhere"):
        types.name("B", "domain", Rule(pattern="^[a-z]*$"), "")
