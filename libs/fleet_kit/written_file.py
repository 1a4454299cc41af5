"""Files that people write for the fleet: JSON, or YAML where the name ends in .yaml or .yml."""

import json
from pathlib import PurePath

from pydantic import JsonValue

from fleet_events.strict_json import read_json

__all__ = ["parse"]


def parse(content: bytes | str, name: str) -> JsonValue:
    """The value that a file of that name holds.

    YAML is of version 1.2 (`no` is a text), one document, and holds what JSON can hold: no tags, no dates.

    Raises:
        ValueError: it is not of its form, names a key twice in YAML, or has what `read_json` refuses.
    """
    if PurePath(name).suffix not in {".yaml", ".yml"}:
        try:
            return read_json(content)
        except ValueError as error:
            raise ValueError(f"read as JSON (names of YAML files end in .yaml or .yml): {error}") from None
    # Here alone: most processes never read YAML.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(content.decode() if isinstance(content, bytes) else content)
        document = json.dumps(value, allow_nan=False, default=_refuse)
    except MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"not YAML: {at}{error.problem}") from None
    except YAMLError as error:
        raise ValueError(f"not YAML: {error}") from None
    except (TypeError, RecursionError) as error:  # a key that is a list; too many levels
        raise ValueError(f"not what JSON can hold: {error}") from None
    return read_json(document)


def _refuse(value: object) -> None:
    raise ValueError(f"{value} is a {type(value).__name__}: put it in quotes, so that it is a text")
