"""Generates fleet_events/v1.py from proto-schemas: `python -m fleet_events.codegen [--check]`.

The contract's comments become docstrings and its rules (lorafleet.options.v1.rule) become pydantic
constraints, so that a field is described and bounded in one place, the .proto file.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as ProtoMessage
from pydantic.alias_generators import to_camel

PACKAGE = "lorafleet.events.v1"
HERE = Path(__file__).parent
SCHEMAS = HERE.parent.parent / "proto-schemas"
Field = descriptor_pb2.FieldDescriptorProto

SCALARS = {
    Field.TYPE_STRING: "str",
    Field.TYPE_BOOL: "Bool",
    Field.TYPE_DOUBLE: "Double",
    Field.TYPE_INT32: "Int32",
    Field.TYPE_INT64: "Int64",
}
BOUNDED = {"Double": ("float", "NUMBER"), "Int32": ("int", "INTEGER"), "Int64": ("int", "INTEGER, QUOTED")}
"""How a number with bounds of its own is spelled: its Python type, and what stands behind the bounds."""
RANGES = {"Int32": {"ge": "-(2**31)", "le": "2**31 - 1"}, "Int64": {"ge": "-(2**63)", "le": "2**63 - 1"}}
DEFAULTS = {"str": '""', "Bool": "False", "Double": "0.0", "Int32": "0", "Int64": "0"}

HEADER = '''"""Generated from proto-schemas by `python -m fleet_events.codegen`. Do not edit."""

from typing import Annotated, ClassVar

from pydantic import Field

from fleet_events.message import Event, Message
from fleet_events.protojson import INTEGER, NUMBER, QUOTED, Bool, Double, Int32, Int64, Timestamp
'''


def build_image() -> bytes:
    """Compile proto-schemas with buf; raises `subprocess.CalledProcessError` with buf's message on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        subprocess.run(["buf", "build", "-o", str(image)], cwd=SCHEMAS, check=True)
        return image.read_bytes()


def comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Leading comments by descriptor path."""
    return {tuple(spot.path): spot.leading_comments.strip() for spot in file.source_code_info.location}


class Rules:
    """Reads the rule option of a field out of its serialised options."""

    def __init__(self, image: descriptor_pb2.FileDescriptorSet) -> None:
        pool = descriptor_pool.DescriptorPool()
        for file in image.file:
            pool.Add(file)
        self._extension = pool.FindExtensionByName("lorafleet.options.v1.rule")
        self._options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
        message_factory.GetMessageClass(pool.FindMessageTypeByName("lorafleet.options.v1.Rule"))

    def of(self, field: descriptor_pb2.FieldDescriptorProto) -> ProtoMessage:
        options = self._options.FromString(field.options.SerializeToString())
        rule: ProtoMessage = options.Extensions[self._extension]  # type: ignore[index]  # a dynamic extension
        return rule


def constraints(rule: ProtoMessage, kind: str, *, required: bool) -> dict[str, str]:
    """pydantic constraints of one scalar value."""
    number = float if kind == "Double" else int
    found = {name: repr(number(getattr(rule, name))) for name in ("ge", "le") if rule.HasField(name)}
    if pattern := rule.pattern:  # type: ignore[attr-defined]  # a dynamic message
        found["pattern"] = repr(f"^(?:{pattern})$" if required else f"^(?:|{pattern})$")
    elif required and kind == "str":
        found["min_length"] = "1"
    return found


def annotate(kind: str, bounds: dict[str, str]) -> str:
    if not bounds:
        return kind
    python, behind = BOUNDED.get(kind, (kind, ""))
    listed = ", ".join(f"{name}={value}" for name, value in (RANGES.get(kind, {}) | bounds).items())
    return f"Annotated[{python}, Field({listed}){', ' + behind if behind else ''}]"


def typed(field: descriptor_pb2.FieldDescriptorProto, rule: ProtoMessage, maps: dict[str, str]) -> tuple[str, str]:
    """Python annotation and default (empty: the field must be given) of one field."""
    required: bool = rule.required  # type: ignore[attr-defined]
    longest = {"max_length": str(rule.max_length)} if rule.HasField("max_length") else {}  # type: ignore[attr-defined]
    if field.type == Field.TYPE_MESSAGE:
        if field.type_name in maps:
            return maps[field.type_name], "Field(default_factory=dict)"
        name = field.type_name.rpartition(".")[2]
        if field.label == Field.LABEL_REPEATED:
            return annotate(f"tuple[{name}, ...]", longest), "()"
        return (name, "") if required else (f"{name} | None", "None")
    kind = SCALARS[field.type]
    if field.label == Field.LABEL_REPEATED:
        return annotate(f"tuple[{annotate(kind, constraints(rule, kind, required=False))}, ...]", longest), "()"
    if required and kind != "str" and not rule.ge > 0:  # type: ignore[attr-defined]
        raise ValueError(f"{field.name}: protobuf leaves a zero out, so a needed number must have a ge above zero")
    annotation = annotate(kind, constraints(rule, kind, required=required) | longest)
    if field.proto3_optional:
        return f"{annotation} | None", "None"
    return annotation, "" if required else DEFAULTS[kind]


def render_message(
    message: descriptor_pb2.DescriptorProto,
    notes: dict[tuple[int, ...], str],
    path: tuple[int, ...],
    rules: Rules,
    *,
    event: bool,
) -> Iterator[str]:
    yield f"\n\nclass {message.name}({'Event' if event else 'Message'}):"
    yield f'    """{notes.get(path, message.name)}"""\n'
    if event:
        yield f'    type_name: ClassVar[str] = "{PACKAGE}.{message.name}"\n'
    maps = {
        f".{PACKAGE}.{message.name}.{entry.name}": f"dict[str, {SCALARS[entry.field[1].type]}]"
        for entry in message.nested_type
        if entry.options.map_entry
    }
    for number, field in enumerate(message.field):
        if field.json_name != to_camel(field.name):
            raise ValueError(
                f"{message.name}.{field.name}: its JSON name {field.json_name!r} must be {to_camel(field.name)!r}"
            )
        annotation, default = typed(field, rules.of(field), maps)
        yield f"    {field.name}: {annotation}" + (f" = {default}" if default else "")
        if note := notes.get((*path, 2, number)):
            yield f'    """{note}"""'


def render(image: descriptor_pb2.FileDescriptorSet) -> str:
    """The text of v1.py. Messages of common.proto and those used as a field's type are values, the others events."""
    files = [file for file in image.file if file.package == PACKAGE]
    used = {
        field.type_name.rpartition(".")[2] for file in files for message in file.message_type for field in message.field
    }
    rules = Rules(image)
    values: list[str] = []
    events: list[str] = []
    names: list[str] = []
    pending: list[tuple[str, str, set[str]]] = []
    for file in files:
        notes = comments(file)
        for index, message in enumerate(file.message_type):
            event = message.name not in used and not file.name.endswith("/common.proto")
            text = "\n".join(render_message(message, notes, (4, index), rules, event=event))
            if event:
                events.append(text)
                names.append(message.name)
            else:
                needs = {field.type_name.rpartition(".")[2] for field in message.field if field.type_name}
                pending.append((message.name, text, needs))
    defined: set[str] = set()
    while pending:  # a value is written after the values it is made of
        ready = next(item for item in pending if not (item[2] & {name for name, _, _ in pending} - {item[0]}))
        pending.remove(ready)
        defined.add(ready[0])
        values.append(ready[1])
    listing = "\n\nEVENTS: tuple[type[Event], ...] = (\n" + "".join(f"    {name},\n" for name in sorted(names)) + ")"
    text = "\n".join([HEADER.rstrip(), *values, *events, listing, ""])
    return text.replace("google.protobuf.Timestamp", "Timestamp")


def main(arguments: list[str]) -> int:
    """Write the generated files, or with --check say which differ (exit code 1)."""
    binary = build_image()
    image = descriptor_pb2.FileDescriptorSet.FromString(binary)
    text = subprocess.run(
        ["ruff", "format", "--line-length", "120", "-"],
        input=render(image),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for file in image.file:
        file.ClearField("source_code_info")
    outputs = {
        HERE / "v1.py": text.encode(),
        HERE / "image.binpb": image.SerializeToString(deterministic=True),
    }
    stale = [path.name for path, content in outputs.items() if not path.exists() or path.read_bytes() != content]
    if "--check" in arguments:
        if stale:
            print(
                f"generated code differs from proto-schemas: {', '.join(stale)}; run `make generate`",
                file=sys.stderr,
            )
        return 1 if stale else 0
    for path, content in outputs.items():
        path.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
