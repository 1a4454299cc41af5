"""What a field's `buf.validate` option requires, read from compiled descriptors for `fleet_events.codegen`.

A rule that the generated classes could not enforce is refused here, so that no publisher is held to something that the
fleet itself would not check.
"""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["Rule", "Rules"]

Field = descriptor_pb2.FieldDescriptorProto
KINDS = {
    Field.TYPE_STRING: "string",
    Field.TYPE_BOOL: "bool",
    Field.TYPE_DOUBLE: "double",
    Field.TYPE_INT32: "int32",
    Field.TYPE_INT64: "int64",
}
"""Protobuf type → its name in `buf.validate.FieldRules`."""
_NEVER, _IF_ZERO = 0, 1
"""Of `buf.validate.Ignore`."""
NUMBERS = ("double", "int32", "int64")


@dataclass(frozen=True)
class Rule:
    """What one field, or one item of a repeated field, must keep. The default permits everything."""

    required: bool = False
    pattern: str = ""
    """RE2 expression from `^` to `$`."""
    permitted: tuple[str, ...] = ()
    """The values of a closed set; empty: any."""
    gte: float | None = None
    lte: float | None = None
    longest: int | None = None
    """Characters of a string, items of a repeated field."""
    items: "Rule | None" = None


class Rules:
    """Reads the options of an image's fields, with the descriptor of `buf.validate` that the image brings."""

    def __init__(self, image: descriptor_pb2.FileDescriptorSet) -> None:
        pool = descriptor_pool.DescriptorPool()
        for file in image.file:
            pool.Add(file)
        self._extension = pool.FindExtensionByName("buf.validate.field")
        self._options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
        message_factory.GetMessageClass(pool.FindMessageTypeByName("buf.validate.FieldRules"))
        self._map_values = {
            f".{file.package}.{message.name}.{entry.name}": KINDS[entry.field[1].type]
            for file in image.file
            for message in file.message_type
            for entry in message.nested_type
            if entry.options.map_entry and entry.field[1].type in KINDS
        }
        """Type of a map's entry → kind of its values."""

    def of(self, field: descriptor_pb2.FieldDescriptorProto) -> Rule:
        """The field's rule; raises `ValueError` for one that the generated classes cannot enforce."""
        options: Any = self._options.FromString(field.options.SerializeToString())
        try:
            return self._read(field, _values(options.Extensions[self._extension]))
        except ValueError as error:
            raise ValueError(f"{field.name}: {error}") from None

    def _read(self, field: descriptor_pb2.FieldDescriptorProto, given: dict[str, Any]) -> Rule:
        required, ignored = bool(given.pop("required", False)), given.pop("ignore", _NEVER)
        repeated, kind = field.label == Field.LABEL_REPEATED, KINDS.get(field.type, "")
        tracked = field.proto3_optional or not kind
        if ignored not in (_NEVER, _IF_ZERO) or (ignored and (repeated or required or tracked)):
            raise ValueError("only a single value that may be absent can be ignored, and only where it is zero")
        if repeated:
            if required:
                raise ValueError("the rule required is not known for a repeated field")
            return self._map(given, field.type_name) if field.type_name in self._map_values else _several(given, kind)
        rule = replace(_one(given, kind), required=required)
        if not tracked and not required and not ignored and _refuses_zero(rule, kind):
            raise ValueError(
                "protobuf leaves a zero out: give `required`, or `ignore: IGNORE_IF_ZERO_VALUE` where it may be absent"
            )
        if required and kind in NUMBERS and not _refuses_zero(rule, kind):
            raise ValueError("protobuf leaves a zero out: a required number needs a gte above zero")
        return rule

    def _map(self, given: dict[str, Any], entry: str) -> Rule:
        own = _values(given.pop("map")) if "map" in given else {}
        rule = _one(_values(own.pop("values")) if "values" in own else {}, self._map_values[entry])
        if given or own or rule != Rule():
            raise ValueError("of a map only `values.double.finite` is known to fleet_events.rules")
        return rule


def _values(rules: Any) -> dict[str, Any]:
    return {descriptor.name: value for descriptor, value in rules.ListFields()}


def _one(given: dict[str, Any], kind: str) -> Rule:
    own = _values(given.pop(kind)) if kind in given else {}
    rule = Rule(
        pattern=own.pop("pattern", ""),
        permitted=tuple(own.pop("in", ())),
        gte=own.pop("gte", None),
        lte=own.pop("lte", None),
        longest=own.pop("max_len", None),
    )
    finite = own.pop("finite", False)
    if unknown := [*given, *own]:
        raise ValueError(f"the rule {', '.join(unknown)} is not known to fleet_events.rules")
    if rule.pattern and not (rule.pattern.startswith("^") and rule.pattern.endswith("$")):
        raise ValueError(f"pattern {rule.pattern!r} must hold for the whole text: write it from ^ to $")
    if kind == "double" and not finite and (rule.gte is None or rule.lte is None):
        raise ValueError("the fleet's JSON has neither NaN nor infinity: give `finite: true`, or gte and lte")
    return rule


def _several(given: dict[str, Any], kind: str) -> Rule:
    own = _values(given.pop("repeated")) if "repeated" in given else {}
    items = _one(_values(own.pop("items")) if "items" in own else {}, kind)
    rule = Rule(longest=own.pop("max_items", None), items=items)
    if unknown := [*given, *own]:
        raise ValueError(f"the rule {', '.join(unknown)} is not known to fleet_events.rules")
    return rule


def _refuses_zero(rule: Rule, kind: str) -> bool:
    """Whether an empty string, or zero, breaks it."""
    if kind == "string":
        return bool(rule.pattern or rule.permitted)
    return kind in NUMBERS and ((rule.gte or 0) > 0 or (rule.lte or 0) < 0)
