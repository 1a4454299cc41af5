"""Reads a training request from a body, with all its faults at once."""

import copy
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet_events import v1
from fleet_events.strict_json import read_json
from services.trainer.faults import Fault

_NAMELESS = "unnamed"
_SHOWN = "a value that is not shown"
_PATH = re.compile(r"[A-Za-z0-9_.]{1,200}")
_LONGEST_NUMBER = 400


@dataclass(frozen=True)
class Reading:
    """A body as far as it can be read.

    `request` is what is left once the fields at fault are left out, so that the rest can be examined with them; None
    where nothing is. `named`: whether its domain is the sender's.
    """

    request: v1.TrainingRequested | None
    faults: tuple[Fault, ...]
    named: bool = True


def read_request(body: bytes, *, newer: bool = False) -> Reading:
    """The request in a body, and all faults of its fields. `newer` lets fields pass that the contract does not have."""
    try:
        raw = read_json(body)
    except ValueError as error:
        return Reading(None, (_unreadable(body, str(error)),), named=False)
    if not isinstance(raw, dict):
        return Reading(None, (Fault("body", raw, "a JSON object"),), named=False)
    faults = [] if newer else list(_unknown(raw))
    try:
        return Reading(v1.TrainingRequested.model_validate(raw), tuple(faults))
    except ValidationError as error:
        broken = error.errors()
    faults += [Fault(".".join(map(str, one["loc"])), _shown(one.get("input")), one["msg"]) for one in broken]
    rest = copy.deepcopy(raw)
    for one in broken:
        _drop(rest, one["loc"])
    try:
        request = v1.TrainingRequested.model_validate({"domain": _NAMELESS, **rest})
    except ValidationError:
        return Reading(None, tuple(faults), named=False)
    return Reading(request, tuple(faults), named="domain" in rest)


def _unreadable(body: bytes, reason: str) -> Fault:
    """What is wrong with a body that the JSON reader refuses, by the field at fault where there is one."""
    field, _, why = reason.partition(": ")
    if why and _PATH.fullmatch(field):
        return Fault(field, _SHOWN, f"a value that the fleet can hold: {why[:200]}")
    try:
        # Read again with every number as it is written: the reader does not name the one it refused.
        raw = json.loads(body, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    except (ValueError, RecursionError):
        return Fault("body", body[:80].decode(errors="replace"), "a JSON object")
    for place, number in _numbers(raw):
        if len(number) > _LONGEST_NUMBER or not math.isfinite(float(number)):
            return Fault(place, f"{number[:40]}", "a finite number of 64 bits at most")
    return Fault("body", body[:80].decode(errors="replace"), f"a JSON object ({reason[:200]})")


class _Number(str):
    """A number as it was written, which no text of the body is mistaken for."""


def _numbers(raw: Any) -> Iterator[tuple[str, _Number]]:
    stack: list[tuple[str, Any]] = [("", raw)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, _Number):
            yield place or "body", value
        elif isinstance(value, dict):
            stack += [(f"{place}.{name}".strip(".")[:200], inner) for name, inner in value.items()]
        elif isinstance(value, list):
            stack += [(f"{place}.{at}".strip(".")[:200], inner) for at, inner in enumerate(value)]


def _unknown(raw: dict[str, Any]) -> Iterator[Fault]:
    """Fields that the contract does not have. The bus ignores them, for the sake of newer writers; a caller most
    likely misspelled one, and would train with a default instead."""
    hyperparameters = raw.get("hyperparameters")
    for prefix, values, model in (
        ("", raw, v1.TrainingRequested),
        ("hyperparameters.", hyperparameters if isinstance(hyperparameters, dict) else {}, v1.Hyperparameters),
    ):
        known = {name for field, info in model.model_fields.items() for name in (field, info.alias or field)}
        for name in sorted(values.keys() - known):
            expected = "one of " + ", ".join(sorted(model.model_fields))
            yield Fault(f"{prefix}{name[:100]}", _shown(values[name]), expected)


def _shown(value: object) -> object:
    """The value as an answer repeats it: no longer than a line."""
    return value if isinstance(value, int | float | None) or len(repr(value)) <= 200 else f"{repr(value)[:200]}…"


def _drop(values: Any, place: tuple[int | str, ...]) -> None:
    *path, last = place
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return
        values = values[part]
    if isinstance(values, dict):
        values.pop(last, None)
