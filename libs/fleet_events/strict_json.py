"""The one reader of JSON that comes from outside (RFC 8259, and what RFC 7493 advises beyond it).

Reading is linear in the size of the body, so a limit on the size is a limit on the time.
"""

import re
from collections.abc import Iterator

import pydantic_core
from pydantic import JsonValue

from fleet_events.text import refuse_unstorable

__all__ = ["BYTE_ORDER_MARK", "MAX_CONTAINERS", "MAX_DEPTH", "read_json"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Of UTF-8. Some clients put one before their JSON, and RFC 8259, section 8.1, lets a reader pass over it."""
MAX_DEPTH = 64
"""Arrays and objects within each other."""
MAX_CONTAINERS = 200_000
"""Arrays and objects in all. Making them is what parsing takes its time for, and it keeps other threads waiting."""

_INT64 = range(-(2**63), 2**63)


def read_json(body: bytes | str) -> JsonValue:
    """The value of a JSON document.

    Raises:
        ValueError: not JSON, or JSON that not every part of the fleet can hold: NaN and infinities (also as 1e999),
            integers beyond 64 bits, NUL characters, half surrogate pairs, more than `MAX_DEPTH` levels or
            `MAX_CONTAINERS` arrays and objects. The message gives the place.
    """
    body = (body.encode() if isinstance(body, str) else body).removeprefix(BYTE_ORDER_MARK)
    if _containers(body) > MAX_CONTAINERS and _containers(_STRINGS.sub(b"", body)) > MAX_CONTAINERS:
        raise ValueError(f"body: more than {MAX_CONTAINERS} arrays and objects")
    value: JsonValue = pydantic_core.from_json(body, allow_inf_nan=False)
    if _may_hold_a_fault(body) or not _is_shallow(value):
        for fault in _faults(value):
            raise ValueError(fault)
    return value


_MAY_BE_A_FAULT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\d{19}|[eE]\+?0*\d{3}")
"""Escapes of NUL and surrogates, integers near 64 bits, exponents near a double's. What has none of these can only be
too deep, and finding that takes a tenth of the time in which every value's place is followed."""


_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
"""One that does not end is taken to the end, so that no byte is looked at twice."""


def _containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _may_hold_a_fault(body: bytes) -> bool:
    return _MAY_BE_A_FAULT.search(body) is not None


def _is_shallow(document: JsonValue) -> bool:
    level: list[JsonValue] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return True
    return False


def _faults(document: JsonValue) -> Iterator[str]:
    # A stack of our own: the depth is the sender's choice, Python's recursion limit is not.
    stack: list[tuple[JsonValue, tuple[str | int, ...]]] = [(document, ())]
    while stack:
        value, path = stack.pop()
        if isinstance(value, (dict, list)):
            if len(path) >= MAX_DEPTH:
                yield f"{_name(path)}: nested deeper than {MAX_DEPTH} levels"
                return
            if isinstance(value, dict):
                yield from (f"{_name(path)}: a key's {fault}" for fault in map(_text_fault, value) if fault)
                stack += [(inner, (*path, key)) for key, inner in value.items()]
            else:
                stack += [(inner, (*path, index)) for index, inner in enumerate(value)]
        elif isinstance(value, str):
            if fault := _text_fault(value):
                yield f"{_name(path)}: {fault}"
        elif isinstance(value, int) and value not in _INT64:
            yield f"{_name(path)}: integer outside -2^63 to 2^63 - 1"
        elif isinstance(value, float) and value in {float("inf"), float("-inf")}:
            yield f"{_name(path)}: number outside the range of a double"


def _text_fault(text: str) -> str:
    try:
        refuse_unstorable(text)
    except ValueError as error:
        return str(error)
    return ""


def _name(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))[:200] or "body"
