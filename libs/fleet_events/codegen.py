"""Generates fleet_events/v1.py from proto-schemas: `python -m fleet_events.codegen [--check]`.

The contract's comments become docstrings, its rules (`buf.validate.field`) pydantic constraints and its closed sets
(`in`) enumerations, so that a field is described and bounded in one place, the .proto file.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from pydantic.alias_generators import to_camel

from fleet_events.named_types import NamedTypes
from fleet_events.rules import Rule, Rules

PACKAGE = "lorafleet.events.v1"
HERE = Path(__file__).parent
SCHEMAS = HERE.parent.parent / "proto-schemas"
RULES_FILE = "buf/validate/validate.proto"
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

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet_events.closed_set import ClosedSet, OrEmpty
from fleet_events.message import Event, Message
from fleet_events.protojson import INTEGER, NUMBER, QUOTED, Bool, Double, Int32, Int64, Timestamp
'''


def build_image() -> bytes:
    """Compile proto-schemas with buf; raises `subprocess.CalledProcessError` with buf's message on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        beside = Path(sys.executable).with_name("buf")  # its wheel puts it there, independent of PATH
        buf = str(beside) if beside.exists() else "buf"
        subprocess.run([buf, "build", "-o", str(image)], cwd=SCHEMAS, check=True)
        return image.read_bytes()


def comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Leading comments by descriptor path."""
    return {tuple(spot.path): spot.leading_comments.strip() for spot in file.source_code_info.location}


def constraints(rule: Rule, kind: str, *, filled: bool) -> dict[str, str]:
    """pydantic constraints of one scalar value. `filled`: an empty string breaks the rule."""
    number = float if kind == "Double" else int
    found = {name: repr(number(value)) for name, value in (("ge", rule.gte), ("le", rule.lte)) if value is not None}
    if rule.pattern:
        found["pattern"] = repr(rule.pattern if filled else f"^(?:|{rule.pattern[1:-1]})$")
    elif rule.required and kind == "str":
        found["min_length"] = "1"
    return found


def annotate(kind: str, bounds: dict[str, str]) -> str:
    if not bounds:
        return kind
    python, behind = BOUNDED.get(kind, (kind, ""))
    listed = ", ".join(f"{name}={value}" for name, value in (RANGES.get(kind, {}) | bounds).items())
    return f"Annotated[{python}, Field({listed}){', ' + behind if behind else ''}]"


def scalar(kind: str, rule: Rule, named: str, *, filled: bool) -> str:
    """Python annotation of one scalar value. `named`: its type's name; `filled`: an empty string breaks the rule."""
    if rule.permitted:
        return named if filled else f'Annotated[{named} | Literal[""], OrEmpty({named})]'
    if named and filled:
        return named
    longest = {} if rule.longest is None else {"max_length": str(rule.longest)}
    return annotate(kind, constraints(rule, kind, filled=filled) | longest)


def typed(field: Field, rule: Rule, named: str, maps: dict[str, str]) -> tuple[str, str]:
    """Python annotation and default (empty: the field must be given) of one field."""
    longest = {} if rule.longest is None else {"max_length": str(rule.longest)}
    if field.type == Field.TYPE_MESSAGE:
        if field.type_name in maps:
            return maps[field.type_name], "Field(default_factory=dict)"
        name = field.type_name.rpartition(".")[2]
        if field.label == Field.LABEL_REPEATED:
            return annotate(f"tuple[{name}, ...]", longest), "()"
        return (name, "") if rule.required else (f"{name} | None", "None")
    kind = SCALARS[field.type]
    if rule.items:
        item = scalar(kind, rule.items, named, filled=True)
        return annotate(f"tuple[{item}, ...]", longest), "()"
    # Where protobuf tracks presence, an unset field is None and an empty one was set so.
    annotation = scalar(kind, rule, named, filled=rule.required or field.proto3_optional)
    if field.proto3_optional:
        return f"{annotation} | None", "None"
    return annotation, "" if rule.required else DEFAULTS[kind]


def render_message(
    message: descriptor_pb2.DescriptorProto,
    notes: dict[tuple[int, ...], str],
    path: tuple[int, ...],
    rules: Rules,
    types: NamedTypes,
    *,
    event: bool,
) -> Iterator[str]:
    if message.options.ByteSize() or any(not one.name.startswith("_") for one in message.oneof_decl):
        raise ValueError(f"{message.name}: options of a whole message, and oneofs, have no counterpart in the classes")
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
        rule, note = rules.of(field), notes.get((*path, 2, number), "")
        annotation, default = typed(field, rule, types.name(message.name, field.name, rule.items or rule, note), maps)
        yield f"    {field.name}: {annotation}" + (f" = {default}" if default else "")
        if note:
            yield f'    """{note}"""'


def render(image: descriptor_pb2.FileDescriptorSet) -> str:
    """The text of v1.py. Messages of common.proto and those used as a field's type are values, the others events."""
    files = [file for file in image.file if file.package == PACKAGE]
    used = {
        field.type_name.rpartition(".")[2] for file in files for message in file.message_type for field in message.field
    }
    rules, types = Rules(image), NamedTypes()
    values: list[str] = []
    events: list[str] = []
    names: list[str] = []
    pending: list[tuple[str, str, set[str]]] = []
    for file in files:
        notes = comments(file)
        for index, message in enumerate(file.message_type):
            event = message.name not in used and not file.name.endswith("/common.proto")
            text = "\n".join(render_message(message, notes, (4, index), rules, types, event=event))
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
    text = "\n".join([HEADER.rstrip(), *types.render(), *values, *events, listing, ""])
    return text.replace("google.protobuf.Timestamp", "Timestamp")


def wire_only(image: descriptor_pb2.FileDescriptorSet) -> descriptor_pb2.FileDescriptorSet:
    """What reading binary bodies needs: neither comments nor rules, which the classes hold."""
    kept = descriptor_pb2.FileDescriptorSet()
    for file in image.file:
        if file.package not in (PACKAGE, "google.protobuf"):
            continue
        slim = kept.file.add()
        slim.CopyFrom(file)
        slim.ClearField("source_code_info")
        if file.package == PACKAGE:
            slim.dependency[:] = [name for name in file.dependency if name != RULES_FILE]
            for field in (field for message in slim.message_type for field in message.field):
                field.ClearField("options")
    return kept


def main(arguments: list[str]) -> int:
    """Write the generated files, or with --check list those that differ (exit code 1)."""
    binary = build_image()
    image = descriptor_pb2.FileDescriptorSet.FromString(binary)
    text = subprocess.run(
        ["ruff", "format", "--line-length", "120", "-"],
        input=render(image),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    outputs = {
        HERE / "v1.py": text.encode(),
        HERE / "image.binpb": wire_only(image).SerializeToString(deterministic=True),
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
