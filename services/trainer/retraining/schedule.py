"""Times at which a domain is trained again: four small forms, all in UTC. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

FORMS = '"every 6h" (m, h or d), "daily 03:00", "weekly mon 03:00" or "monthly 1 03:00" (day 1 to 28), in UTC'
SHORTEST = timedelta(minutes=5)
LONGEST = timedelta(days=366)

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EVERY = re.compile(r"every ([1-9][0-9]{0,5})([mhd])")
_CLOCK = re.compile(
    r"(daily|weekly (mon|tue|wed|thu|fri|sat|sun)|monthly ([1-9]|1[0-9]|2[0-8])) ([01][0-9]|2[0-3]):([0-5][0-9])"
)


@dataclass(frozen=True)
class Timetable:
    """`last_due(since, now)`: the newest due time in (since, now], None where none is. `since` anchors intervals."""

    last_due: Callable[[datetime, datetime], datetime | None]


def parse(text: str) -> Timetable:
    """The timetable of one of the forms; raises ValueError for another text."""
    if found := _EVERY.fullmatch(text):
        interval = int(found[1]) * _UNITS[found[2]]
        if not SHORTEST <= interval <= LONGEST:
            raise ValueError(f"{text!r} is an interval of {interval}, expected 5 minutes to 366 days")
        return Timetable(lambda since, now: _interval(interval, since, now))
    if found := _CLOCK.fullmatch(text):
        at = time(int(found[4]), int(found[5]))
        weekday = _DAYS.index(found[2]) if found[2] else None
        monthday = int(found[3]) if found[3] else None
        return Timetable(lambda since, now: _clock(at, weekday, monthday, since, now))
    raise ValueError(f"{text!r} is no schedule, expected {FORMS}")


def check_schedule(text: str) -> str:
    """The text itself where it is a schedule; raises ValueError."""
    parse(text)
    return text


def _interval(interval: timedelta, since: datetime, now: datetime) -> datetime | None:
    passed = (now - since) // interval
    return since + passed * interval if passed > 0 else None


def _clock(at: time, weekday: int | None, monthday: int | None, since: datetime, now: datetime) -> datetime | None:
    today = now.astimezone(UTC).date()
    # A month has no more than 31 days, so one of the last 32 days fits each form.
    for back in range(32):
        day = today - timedelta(days=back)
        due = datetime.combine(day, at, UTC)
        fits = weekday in (None, day.weekday()) and monthday in (None, day.day)
        if fits and due <= now:
            return due if due > since else None
    return None
