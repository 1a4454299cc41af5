"""Reads a training request from a body, with all its faults at once."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet_events import v1
from services.trainer.configuration import Fault

_NAMELESS = "unnamed"


@dataclass(frozen=True)
class Reading:
    """A body as far as it can be read.

    `request` is what is left once the fields at fault are left out, so that the rest can be examined with them; None
    where nothing is. `named` tells whether its domain is the sender's.
    """

    request: v1.TrainingRequested | None
    faults: tuple[Fault, ...]
    named: bool = True


def read_request(body: bytes, *, newer: bool = False) -> Reading:
    """The request in a body, and all faults of its fields. `newer` lets fields pass that the contract does not have."""
    try:
        raw = json.loads(body)
    except ValueError:
        raw = body[:80].decode(errors="replace")
    if not isinstance(raw, dict):
        return Reading(None, (Fault("body", raw, "a JSON object"),), named=False)
    faults = [] if newer else list(_unknown(raw))
    try:
        return Reading(v1.TrainingRequested.model_validate(raw), tuple(faults))
    except ValidationError as error:
        broken = error.errors()
    faults += [Fault(".".join(map(str, one["loc"])), one.get("input"), one["msg"]) for one in broken]
    rest = copy.deepcopy(raw)
    for one in broken:
        _drop(rest, one["loc"])
    try:
        request = v1.TrainingRequested.model_validate({"domain": _NAMELESS, **rest})
    except ValidationError:
        return Reading(None, tuple(faults), named=False)
    return Reading(request, tuple(faults), named="domain" in rest)


def _unknown(raw: dict[str, Any]) -> Iterator[Fault]:
    """Fields that the contract does not have. The bus ignores them, for the sake of newer writers; a caller most
    likely misspelled one, and would train with a default instead."""
    asked = raw.get("hyperparameters")
    for prefix, values, model in (
        ("", raw, v1.TrainingRequested),
        ("hyperparameters.", asked if isinstance(asked, dict) else {}, v1.Hyperparameters),
    ):
        known = {name for field, info in model.model_fields.items() for name in (field, info.alias or field)}
        for name in sorted(values.keys() - known):
            expected = "one of " + ", ".join(sorted(model.model_fields))
            yield Fault(f"{prefix}{name}", values[name], expected)


def _drop(values: Any, place: tuple[int | str, ...]) -> None:
    *path, last = place
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return
        values = values[part]
    if isinstance(values, dict):
        values.pop(last, None)
