"""docs/sign-off.md names only tests and targets that there are."""

from __future__ import annotations

import re
from typing import Any


def test_every_test_and_target_that_answers_a_question_exists(tools: Any) -> None:
    page = (tools.root / "docs" / "sign-off.md").read_text()
    tests = "".join(path.read_text() for path in (tools.root / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", page))
    assert len(named) > 15
    assert {one for one in named if f"def {one}(" not in tests} == set()
    targets = set(re.findall(r"`make ([a-z-]+)`", page))
    makefile = (tools.root / "Makefile").read_text()
    assert {one for one in targets if f"\n{one}:" not in makefile} == set()
