"""docs/compatibility.md is what the tests and their pins make of it."""

import re
from typing import Any

from tests import compatibility_table as table


def test_the_page_is_made_of_the_versions_that_are_pinned() -> None:
    assert table.PAGE.read_text() == table.page(), "run python -m tests.compatibility_table"


def test_every_test_and_target_that_the_page_names_exists(tools: Any) -> None:
    sources = "\n".join(path.read_text() for path in (tools.root / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", table.page()))
    assert len(named) > 15
    assert sorted(name for name in named if f"def {name}(" not in sources) == []
    targets = set(re.findall(r"`make ([\w-]+)`", table.page()))
    assert sorted(name for name in targets if f"\n{name}:" not in (tools.root / "Makefile").read_text()) == []
