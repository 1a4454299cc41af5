"""When a line of a batch is begun again."""

from __future__ import annotations

import pytest

from services.inference.batches.runner import LONGEST_WAIT, TRIES, pause_after
from services.inference.errors import BadRequest, Busy, RateLimited
from services.inference.quotas import Ledger, Quotas

pytestmark = pytest.mark.unit


def refusal(period: str) -> RateLimited:
    ledger = Ledger(Quotas.model_validate({"callers": {"*": {period: {"requests": 0}}}}), lambda: 90.0)
    with pytest.raises(RateLimited) as caught:
        ledger.admit("anna")
    return caught.value


def test_a_minutes_quota_is_waited_for_however_often() -> None:
    assert [pause_after(refusal("minute"), tries) for tries in (1, TRIES, 10 * TRIES)] == [30, 30, 30]


def test_a_months_quota_ends_the_line() -> None:
    assert pause_after(refusal("month"), 1) is None


def test_a_busy_server_is_tried_again_later_and_later_and_not_for_ever() -> None:
    busy = Busy("full", code="queue_full")
    pauses = [pause_after(busy, tries) for tries in range(1, TRIES + 1)]
    assert pauses[:3] == [0.5, 1, 2]
    assert pauses[-2:] == [LONGEST_WAIT, None]


def test_what_the_line_itself_causes_stands() -> None:
    assert pause_after(BadRequest("no", code="bad"), 1) is None
    assert pause_after(None, 1) is None
