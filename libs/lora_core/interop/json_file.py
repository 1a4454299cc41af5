"""A stranger's configuration file, read with care."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pydantic_core

from lora_core.errors import AdapterNotFound, CorruptAdapter

MAX_BYTES = 4 << 20
"""Of a configuration: names and values for each of 20,000 modules fit."""
MAX_DEPTH = 32
"""Arrays and objects within each other."""

_INT64 = range(-(2**63), 2**63)


def read_json(path: Path, missing: str) -> Mapping[str, object]:
    """The JSON object in a file.

    Raises AdapterNotFound with what is `missing`, or CorruptAdapter: too large, not JSON, nested deeper than
    `MAX_DEPTH`, or with what not every reader of it could hold (NaN, infinity, integers beyond 64 bits, NUL, half
    surrogate pairs).
    """
    if not path.is_file():
        raise AdapterNotFound(missing)
    if path.stat().st_size > MAX_BYTES:
        raise CorruptAdapter(path, f"larger than {MAX_BYTES} bytes")
    try:
        content = pydantic_core.from_json(path.read_bytes(), allow_inf_nan=False)
    except ValueError as error:
        raise CorruptAdapter(path, f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CorruptAdapter(path, "not a JSON object")
    for fault in _faults(content):
        raise CorruptAdapter(path, fault)
    return content


def _faults(document: object) -> Iterator[str]:
    level: list[tuple[str, object]] = [("", document)]  # the name of the field at the root, and a value under it
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, object]] = []
        for field, value in level:
            if isinstance(value, dict):
                yield from (f"{field or key!r}: a key has half a character or NUL" for key in value if _odd(key))
                below += [(field or key, inner) for key, inner in value.items()]
            elif isinstance(value, list):
                below += [(field, inner) for inner in value]
            elif isinstance(value, str) and _odd(value):
                yield f"{field}: text with half a character or NUL"
            elif isinstance(value, int) and value not in _INT64:
                yield f"{field}: an integer of more than 64 bits"
            elif isinstance(value, float) and value in {float("inf"), float("-inf")}:
                yield f"{field}: a number outside the range of a double"
        level = below
    if level:
        yield f"{level[0][0]}: nested deeper than {MAX_DEPTH} levels"


def _odd(text: str) -> bool:
    return "\x00" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text))
