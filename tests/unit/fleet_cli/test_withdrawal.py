"""The command line tells where a version that was taken out of service may still answer."""

import pytest

from fleet_cli.commands.adapters import _unreached
from lorafleet.responses import Withdrawal

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("withdrawal", "shown"),
    [
        (None, ""),
        (Withdrawal(published=True), ""),
        (Withdrawal(published=False), "; the bus has not stored the event yet"),
        (Withdrawal(published=True, pending=("one", "two")), "; not yet applied by one, two"),
    ],
)
def test_what_is_not_reached_yet_is_named(withdrawal: Withdrawal | None, shown: str) -> None:
    found = _unreached(withdrawal)
    assert found.startswith(shown)
    assert bool(found) == bool(shown)
