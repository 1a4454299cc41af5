"""Files that the user names: read once, checked line by line, every fault named with its option and line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from fleet_kit.written_file import parse
from lorafleet.errors import BadInput


def read_text(name: str, option: str) -> str:
    """Text of a file, or of standard input for `-`; raises `BadInput`."""
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(option, f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(option, f"{name} is not UTF-8 text (byte {error.start})") from error


def read_object(name: str, option: str, which: str) -> dict[str, object]:
    """The object in a JSON or YAML file, or in JSON on standard input for `-`; raises `BadInput`.

    which: describes the object where the file has none.
    """
    try:
        found = parse(read_text(name, option), name)
    except ValueError as error:
        raise BadInput(option, f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(option, f"{name} must hold an object, {which}")
    return dict(found)


def save(chunks: Iterable[bytes], output: Path, option: str) -> None:
    """Write a file, which appears whole or not at all; raises `BadInput`."""
    part = output.with_name(f".{output.name}.part")
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        part.replace(output)
    except OSError as error:
        raise BadInput(option, f"{output} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def read_lines(name: str, option: str, required: tuple[str, ...]) -> list[dict[str, object]]:
    """The objects of a JSONL file, each with the required texts; raises `BadInput` at the first bad line."""
    records: list[dict[str, object]] = []
    for number, text in enumerate(read_text(name, option).split("\n"), start=1):
        # U+2028 and the like are letters within JSON. A mark of byte order is what some editors begin a file with.
        line = text.removeprefix("\ufeff")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BadInput(option, f"{name} line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise BadInput(option, f"{name} line {number} must be an object such as {_example(required)}")
        for field in required:
            value = record.get(field)
            if not isinstance(value, str) or not value.strip():
                found = "is missing" if value is None else f"is {value!r}"
                raise BadInput(option, f"{name} line {number}: {field} {found}; expected {_example(required)}")
        records.append(record)
    if not records:
        raise BadInput(option, f"{name} has no lines; expected lines such as {_example(required)}")
    return records


def to_ndjson(records: list[dict[str, object]]) -> bytes:
    """Lines of JSON, as the services take them."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def _example(fields: tuple[str, ...]) -> str:
    return json.dumps(dict.fromkeys(fields, "..."))
