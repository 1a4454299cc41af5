"""Times at which a domain is trained again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.retraining.schedule import parse

THURSDAY = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("form", "since", "expected"),
    [
        ("every 6h", THURSDAY - timedelta(hours=13), THURSDAY - timedelta(hours=1)),
        ("every 6h", THURSDAY - timedelta(hours=5), None),
        ("daily 03:00", THURSDAY - timedelta(days=3), datetime(2026, 1, 1, 3, tzinfo=UTC)),
        ("daily 15:30", THURSDAY - timedelta(days=3), datetime(2025, 12, 31, 15, 30, tzinfo=UTC)),
        ("daily 03:00", THURSDAY - timedelta(hours=1), None),
        ("weekly mon 03:00", THURSDAY - timedelta(days=30), datetime(2025, 12, 29, 3, tzinfo=UTC)),
        ("weekly thu 12:00", THURSDAY - timedelta(days=30), THURSDAY),
        ("monthly 1 03:00", THURSDAY - timedelta(days=30), datetime(2026, 1, 1, 3, tzinfo=UTC)),
        ("monthly 28 03:00", THURSDAY - timedelta(days=30), datetime(2025, 12, 28, 3, tzinfo=UTC)),
    ],
)
def test_the_newest_due_time_after_the_rules_were_set_counts(
    form: str, since: datetime, expected: datetime | None
) -> None:
    assert parse(form).last_due(since, THURSDAY) == expected


@pytest.mark.parametrize(
    "form", ["", "hourly", "every 0h", "every 1m", "daily 24:00", "weekly 03:00", "monthly 29 03:00", "0 3 * * *"]
)
def test_any_other_form_is_refused_with_the_forms_there_are(form: str) -> None:
    with pytest.raises(ValueError, match=r"every|interval"):
        parse(form)


_FORMS = st.sampled_from(["every 7h", "every 30m", "daily 03:00", "weekly sun 23:59", "monthly 15 00:00"])


@given(_FORMS, st.integers(0, 90 * 24 * 60), st.integers(0, 90 * 24 * 60))
def test_a_due_time_lies_after_since_and_not_in_the_future_and_never_goes_back(
    form: str, first: int, more: int
) -> None:
    timetable, since = parse(form), THURSDAY
    early, late = since + timedelta(minutes=first), since + timedelta(minutes=first + more)
    before, after = timetable.last_due(since, early), timetable.last_due(since, late)
    for due, now in ((before, early), (after, late)):
        assert due is None or since < due <= now
    assert before is None or (after is not None and after >= before)
