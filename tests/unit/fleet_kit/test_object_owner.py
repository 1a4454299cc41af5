"""Whose objects they are, and how many of them one sweep may delete."""

from __future__ import annotations

import pytest

from fleet_kit.object_owner import Marker, why_not_owned
from fleet_kit.object_sweep import FEW, Bound, SweptKind

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("marker", "why"),
    [
        (Marker("db", 7), ""),
        (Marker("db", 3), ""),  # ended between its database and its marker
        (Marker("db", 8), "restored from an older backup"),
        (Marker("other", 1), "belong to database other"),
    ],
)
def test_objects_are_a_databases_own_unless_another_or_a_later_one_marked_them(marker: Marker, why: str) -> None:
    found = why_not_owned(Marker("db", 7), marker)
    assert why in found
    assert bool(found) is bool(why)


@pytest.mark.parametrize(
    ("objects", "doomed", "confirmed", "refused"),
    [
        (FEW, FEW, 0, False),  # few may always go
        (10_000, 2_500, 0, False),
        (10_000, 2_501, 0, True),
        (10_000, 2_501, 2_500, True),
        (10_000, 2_501, 2_501, False),
        (FEW + 1, FEW + 1, 0, True),
    ],
)
def test_a_sweep_of_unusually_many_objects_takes_their_number(
    objects: int, doomed: int, confirmed: int, refused: bool
) -> None:
    kinds = [
        SweptKind("artifacts", objects=objects - 1, unreferenced=doomed - 1),
        SweptKind("reports", objects=1, unreferenced=1),
    ]
    why = Bound(0.25, confirmed).refusal(kinds)
    assert bool(why) is refused
    assert not refused or f"--at-most {doomed}" in why
