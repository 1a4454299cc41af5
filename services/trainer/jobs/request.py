"""Reads a training request from an HTTP body, with all its faults at once."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from fleet_events import v1
from services.trainer.configuration import Fault, InvalidRequest
from services.trainer.service import Workshop


def read_request(body: bytes, workshop: Workshop) -> v1.TrainingRequested:
    """The request in a body; raises `InvalidRequest` with the faults of its fields and of the whole together."""
    try:
        raw = json.loads(body)
    except ValueError as error:
        raise InvalidRequest((Fault("body", body[:80].decode(errors="replace"), "a JSON object"),)) from error
    if not isinstance(raw, dict):
        raise InvalidRequest((Fault("body", raw, "a JSON object"),))
    faults = list(_unknown(raw))
    places: list[tuple[int | str, ...]] = []
    try:
        request = v1.TrainingRequested.model_validate(raw)
    except ValidationError as error:
        places = [one["loc"] for one in error.errors()]
        faults += [Fault(".".join(map(str, one["loc"])), one.get("input"), one["msg"]) for one in error.errors()]
    faults += _faults_of_the_rest(raw, places, workshop)
    if faults:
        raise InvalidRequest(tuple(faults))
    return request


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


def _faults_of_the_rest(
    raw: dict[str, Any], places: list[tuple[int | str, ...]], workshop: Workshop
) -> tuple[Fault, ...]:
    """What else is wrong, once the fields at fault are left out: so that a caller mends everything in one go."""
    rest = copy.deepcopy(raw)
    for place in places:
        _drop(rest, place)
    try:
        workshop.examine(v1.TrainingRequested.model_validate({"domain": "unnamed", **rest}))
    except InvalidRequest as more:
        return more.faults
    except ValidationError:
        return ()
    return ()


def _drop(values: Any, place: tuple[int | str, ...]) -> None:
    *path, last = place
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return
        values = values[part]
    if isinstance(values, dict):
        values.pop(last, None)
