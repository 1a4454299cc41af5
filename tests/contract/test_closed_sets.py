"""A closed set stands once, in proto-schemas: everything else imports what is generated from it."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from fleet_events import v1
from fleet_events.closed_set import ClosedSet
from fleet_events.codegen import SCHEMAS
from fleet_events.message import Event

pytestmark = pytest.mark.unit

ROOT = SCHEMAS.parent
GENERATED = ROOT / "libs" / "fleet_events" / "v1.py"
SETS = [
    one for one in vars(v1).values() if isinstance(one, type) and issubclass(one, ClosedSet) and one is not ClosedSet
]
MEMBERS = {one.__name__: frozenset(member.value for member in one) for one in SETS}
ALTERNATIVES = {one.__name__: "|".join(one) for one in SETS}
FEWEST = min(map(len, MEMBERS.values()))


def sources() -> Iterator[Path]:
    for folder in ("libs", "services", "benchmarks"):
        yield from (path for path in (ROOT / folder).rglob("*.py") if path != GENERATED)


def listed(node: ast.AST) -> Iterator[ast.expr | None]:
    """What an enumeration, a `Literal[…]`, a collection or a table lists."""
    match node:
        case ast.ClassDef(body=body):
            yield from (statement.value for statement in body if isinstance(statement, ast.Assign))
        case ast.Dict(keys=keys):
            yield from keys
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            yield from elements


def copies(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        texts = {one.value for one in listed(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        if len(texts) >= FEWEST:
            # Each of the nodes that list something has a line.
            yield from ((getattr(node, "lineno", 0), name) for name, members in MEMBERS.items() if texts >= members)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if v1.DOMAIN_NAME.strip("^$") in node.value:
                yield node.lineno, "DomainName"
            yield from ((node.lineno, name) for name, members in ALTERNATIVES.items() if members in node.value)


def test_no_source_file_types_a_closed_set_or_the_pattern_of_domains_again() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources()
        for line, name in copies(ast.parse(path.read_text()))
    ]
    assert not found


@pytest.mark.parametrize(
    "again",
    [
        'class Bump(StrEnum):\n    A = "patch"\n    B = "minor"\n    C = "major"',
        'Bump = Literal["patch", "minor", "major"]',
        'BUMPS = {"major", "minor", "patch", "none"}',
        'RULES = {"major": 1, "minor": 2, "patch": 3}',
        'bump: str = Field(pattern="^(?:|major|minor|patch)$")',
        'domain: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")',
    ],
)
def test_a_second_copy_is_found_in_every_way_of_writing_it(again: str) -> None:
    assert {name for _, name in copies(ast.parse(again))} in ({"Bump"}, {"DomainName"})


def test_every_closed_set_of_the_contract_is_generated_once() -> None:
    assert {one.__name__ for one in SETS} >= {"Method", "Objective", "Bump", "ExportKind", "RecordKind", "Scheduler"}
    assert len({frozenset(one) for one in SETS}) == len(SETS)
    text = "".join(path.read_text() for path in SCHEMAS.rglob("lorafleet/**/*.proto"))
    assert "lorafleet.options" not in text
    assert 'pattern: "^(' not in text, "alternatives of plain words are a closed set: write them as `in`"


@pytest.mark.parametrize(
    ("event", "body", "field", "permitted"),
    [
        (v1.TrainingRequested, {"method": "full"}, "method", v1.Method),
        (v1.TrainingRequested, {"bump": "PATCH"}, "bump", v1.Bump),
        (v1.TrainingRequested, {"objective": "ppo"}, "objective", v1.Objective),
        (v1.TrainingRequested, {"exports": ["int8", "onnx"]}, "exports.1", v1.ExportKind),
        (v1.TrainingRequested, {"hyperparameters": {"scheduler": "step"}}, "hyperparameters.scheduler", v1.Scheduler),
        (v1.TrainingCompleted, {"method": ""}, "method", v1.Method),
    ],
)
def test_a_value_outside_its_set_is_refused_with_the_field_and_every_value_it_may_have(
    event: type[Event], body: dict[str, object], field: str, permitted: type[ClosedSet]
) -> None:
    with pytest.raises(ValidationError) as caught:
        event.from_json(json.dumps({"domain": "shop"} | body))
    messages = {".".join(map(str, fault["loc"])): fault["msg"] for fault in caught.value.errors()}
    assert all(f"'{member}'" in messages[field] for member in permitted)


@pytest.mark.parametrize("field", ["method", "bump", "objective"])
def test_an_empty_value_is_read_as_unset_and_not_written(field: str) -> None:
    event = v1.TrainingRequested.from_json(json.dumps({"domain": "shop", field: ""}))
    assert (getattr(event, field), json.loads(event.to_json())) == ("", {"domain": "shop"})


def test_members_travel_and_show_as_plain_text() -> None:
    event = v1.TrainingRequested(domain="shop", method=v1.Method.DORA, exports=(v1.ExportKind.GGUF_Q8_0,))
    assert json.loads(event.to_json()) == {"domain": "shop", "method": "dora", "exports": ["gguf-q8_0"]}
    assert v1.TrainingRequested.from_json(event.to_json()) == event
    assert f"{event.method!r}, {event.method}" == "'dora', dora"
