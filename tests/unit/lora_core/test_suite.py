"""About these tests themselves."""

import ast
from pathlib import Path

import pytest


@pytest.mark.requirement("LI-9.7")
def test_no_test_of_this_library_is_excused_from_passing() -> None:
    """Only tests against another runtime may be skipped, where it is absent; those are heavy and say how to get it."""
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            named = node.attr if isinstance(node, ast.Attribute) else ""
            excused = named in ("xfail", "skipif", "importorskip") or (
                named == "skip" and "heavy" not in file.read_text()
            )
            assert not excused, f"{file.name}:{getattr(node, 'lineno', 0)} {named}"
