"""Parameters of SQL are parsed once a statement.

From the sixth call on, a statement that asyncpg has prepared gets a generic plan, in which a conversion of a parameter is
no constant: written inside an expression of a row, it is done again for every row (measured: 12.8 ms against 0.7 ms for
320 vectors). `(select …)` makes it an InitPlan, which runs once.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PARSED = re.compile(
    r"\$\d+::\w+(?:\[\])?::"  # read as one type, then converted to another
    r"|\b(?:\w*to_tsquery|to_tsvector)\([^()]*\$\d+",
    re.IGNORECASE,
)
ALONE = re.compile(r"\(\s*select\s+$", re.IGNORECASE)


def statements() -> Iterator[tuple[str, str]]:
    for folder in ("libs", "services"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "$1" in node.value:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node.value


def parsed_each_row(statement: str) -> list[str]:
    return [found.group() for found in PARSED.finditer(statement) if not ALONE.search(statement[: found.start()])]


def test_no_statement_parses_a_parameter_inside_an_expression_of_a_row() -> None:
    read = list(statements())
    assert len(read) > 100
    assert {place: found for place, text in read if (found := parsed_each_row(text))} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "select max(1 - (embedding <=> $1::text::vector)) from route_text",
        "select 1 from samples where document @@ websearch_to_tsquery('simple', $2)",
    ],
)
def test_a_parameter_that_is_parsed_for_each_row_is_found(statement: str) -> None:
    [found] = parsed_each_row(statement)
    alone = re.sub(r"(\$1::text::vector|websearch_to_tsquery\(.*?\))", r"(select \1)", statement)
    assert parsed_each_row(alone) == [], found
