"""docs/security.md names only what exists, and every scope there is."""

import re
from pathlib import Path
from typing import Any

import pytest

from fleet_kit.caller import SCOPES


@pytest.fixture(scope="module")
def page(tools: Any) -> str:
    return (tools.root / "docs" / "security.md").read_text()


def test_every_test_that_the_page_names_exists(page: str, tools: Any) -> None:
    defined = set[str]()
    for path in (tools.root / "tests").rglob("*.py"):
        defined |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 30
    assert sorted(named - defined) == []


def test_every_row_of_the_threat_table_names_its_test(page: str) -> None:
    section = page.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"`test_\w+` \|$", row)] == []


def test_every_scope_is_described_and_no_other(page: str) -> None:
    assert sorted(re.findall(r"token scope `([a-z:]+)`", page)) == sorted(SCOPES)


def test_every_setting_that_the_page_names_is_one(page: str, tools: Any) -> None:
    fields = set[str]()
    for path in [*Path(tools.root / "services").glob("**/settings.py"), tools.root / "libs/fleet_kit/settings.py"]:
        fields |= set(re.findall(r"^    (\w+): ", path.read_text(), re.MULTILINE))
    named = {name.lower() for name in re.findall(r"`LORAFLEET_(\w+)`", page)}
    assert sorted(named - fields) == []
