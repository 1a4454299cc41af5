"""A stranger's configuration file, read with care."""

import json
from collections.abc import Mapping
from pathlib import Path

from lora_core.errors import AdapterNotFound, CorruptAdapter

_LARGEST = 1_000_000


def read_json(path: Path, missing: str) -> Mapping[str, object]:
    """The JSON object in a file. Raises AdapterNotFound with what is `missing`, or CorruptAdapter."""
    if not path.is_file():
        raise AdapterNotFound(missing)
    if path.stat().st_size > _LARGEST:
        raise CorruptAdapter(path, f"larger than {_LARGEST} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptAdapter(path, f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CorruptAdapter(path, "not a JSON object")
    return content
