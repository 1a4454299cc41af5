"""docs/hyperparameters.md says what the contract and the configuration say."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from fleet_events import v1
from fleet_events.closed_set import ClosedSet
from services.trainer.training.configuration import Configuration, resolve

pytestmark = pytest.mark.unit

PAGE = Path(__file__).parents[3] / "docs" / "hyperparameters.md"
FOLLOWS = {"alpha": "twice the rank", "target_modules": "all of the decoder", "max_steps": "–", "validation_part": "0"}
NONE = {
    "layers": "all",
    "micro_batch_size": "all",
    "checkpoint_steps": "one per epoch",
    "validation_steps": "one per epoch",
    "early_stopping_patience": "–",
}


def rows() -> dict[str, tuple[str, str]]:
    """Hyperparameter → (range, default), as the page's first table has them."""
    return {cell[0].strip(" `"): (cell[1].strip(), cell[2].strip()) for cell in cells() if len(cell) == 4}


def cells() -> list[list[str]]:
    """The cells of every row of the page that begins with a field's name."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]


def parts(field: FieldInfo) -> list[Any]:
    inner = [one for kind in get_args(field.annotation) for one in getattr(kind, "__metadata__", ())]
    return [
        part for one in (*field.metadata, *inner) for part in (one.metadata if isinstance(one, FieldInfo) else [one])
    ]


def closed_set(field: FieldInfo) -> type[ClosedSet] | None:
    """The closed set that a field, or each item of it, is of."""
    waiting = [field.annotation]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, ClosedSet):
            return kind
        waiting += get_args(kind)
    return None


def is_switch(field: FieldInfo) -> bool:
    return "bool" in str(field.annotation)


def stated(field: FieldInfo) -> str:
    """The range that a field of the contract states."""
    if members := closed_set(field):
        return ", ".join(members)
    if is_switch(field):
        return "true, false"
    low = next((one.ge for one in parts(field) if getattr(one, "ge", None) is not None), None)
    high = next((one.le for one in parts(field) if getattr(one, "le", None) is not None), None)
    if low is None:
        longest = next(one.max_length for one in parts(field) if getattr(one, "max_length", None) is not None)
        return f"at most {longest} {'names' if 'tuple' in str(field.annotation) else 'characters'}"
    return f"{low:.10g} to {high:.10g}" if high is not None else f"{low:.10g} or more"


@pytest.mark.requirement("TP-1.2")
def test_every_hyperparameter_is_on_the_page_with_its_range_and_its_default() -> None:
    found, usual = rows(), resolve("", None).values()
    assert set(found) == set(v1.Hyperparameters.model_fields)
    assert found.keys() - {"target_modules"} <= set(Configuration.__dataclass_fields__)
    for name, field in v1.Hyperparameters.model_fields.items():
        value = usual[name]
        default = FOLLOWS.get(name) or NONE.get(name) or (f"{value:g}" if isinstance(value, float) else str(value))
        default = default.lower() if is_switch(field) else default
        assert found[name] == (stated(field), default), name


@pytest.mark.requirement("TP-1.2")
def test_every_field_of_a_request_is_on_the_page_with_its_bound() -> None:
    found = {cell[0].strip(" `"): cell[1].strip() for cell in cells() if len(cell) == 2}
    fields = v1.TrainingRequested.model_fields
    assert set(found) == set(fields)
    worded = {"job_id", "domain", "hyperparameters"}
    assert {name: found[name] for name in fields.keys() - worded} == {
        name: stated(field) for name, field in fields.items() if name not in worded
    }


def test_no_hyperparameter_and_no_field_of_a_request_is_unbounded() -> None:
    for model in (v1.Hyperparameters, v1.TrainingRequested):
        for name, field in model.model_fields.items():
            bounds = [
                one
                for one in parts(field)
                if any(getattr(one, bound, None) is not None for bound in ("le", "max_length", "pattern"))
            ]
            assert bounds or closed_set(field) or is_switch(field) or name == "hyperparameters", name
