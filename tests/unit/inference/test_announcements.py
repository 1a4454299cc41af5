"""What a replica knows of the others from their announcements, and for how long."""

from types import SimpleNamespace
from typing import Any

import pytest

from fleet_events.buckets import REPLICAS
from services.inference.base_models import BaseModels
from services.inference.http.drain import Gate
from services.inference.replicas import announcements
from services.inference.replicas.announcements import Announcements
from services.inference.replicas.selection import Replica, Serving

BASE = "sha256-of-the-base"
TTL = REPLICAS.ttl.total_seconds()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(announcements, "time", clock)
    return clock


@pytest.fixture
def seen(clock: Clock) -> Announcements:
    nothing: Any = SimpleNamespace()
    return Announcements(nothing, "here", "http://here:1", BaseModels([]), gate=Gate(), every=1.0)


def announcement(name: str, *, url: str = "", waiting: int = 0) -> bytes:
    serving = Serving(adapters=frozenset({"law"}), running=1, waiting=waiting, rows=8)
    one = Replica(name=name, url=url or f"http://{name}:1", started=1.0, serves={BASE: serving})
    return one.model_dump_json().encode()


def test_a_replica_is_there_as_long_as_its_announcement_is_young(seen: Announcements, clock: Clock) -> None:
    seen.receive("there", announcement("there"))
    clock.now += TTL - 0.1
    assert [one.name for one in seen.others] == ["there"]
    clock.now += 0.2
    assert seen.others == []


def test_a_removed_key_takes_its_replica_away_at_once(seen: Announcements) -> None:
    seen.receive("there", announcement("there"))
    seen.receive("there", None)
    assert seen.others == []


def test_requests_on_their_way_count_until_they_are_done_or_the_replica_counts_them_itself(seen: Announcements) -> None:
    seen.receive("there", announcement("there"))
    with seen.sending("there", BASE), seen.sending("there", BASE):
        assert seen.others[0].serves[BASE].load == 3
        seen.receive("there", announcement("there", waiting=2))
        assert seen.others[0].serves[BASE].load == 3
    assert seen.others[0].serves[BASE].load == 3
    with seen.sending("there", BASE):
        pass
    assert seen.others[0].serves[BASE].load == 3


def test_a_replica_that_was_not_reached_is_left_out_until_it_announces_itself_again(seen: Announcements) -> None:
    seen.receive("there", announcement("there"))
    seen.unreachable("there")
    assert seen.others == []
    seen.receive("there", announcement("there"))
    assert [one.name for one in seen.others] == ["there"]


def test_a_replica_is_gone_only_for_one_that_receives_announcements(seen: Announcements, clock: Clock) -> None:
    seen.receive("here", announcement("here"))
    seen.receive("there", announcement("there"))
    clock.now += TTL + 1
    assert not seen.gone("there"), "nobody can be heard, which tells nothing of one replica"
    seen.receive("here", announcement("here"))
    assert seen.gone("there")
    seen.receive("there", announcement("there"))
    assert not seen.gone("there")


def test_one_that_was_not_reached_is_not_gone_for_requests_that_it_has(seen: Announcements) -> None:
    seen.receive("here", announcement("here"))
    seen.receive("there", announcement("there"))
    seen.unreachable("there")
    assert not seen.gone("there")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        announcement("there", url="http://x:1").replace(b"http://x:1", b"http://user@x:1/path"),
        announcement("other"),
    ],
)
def test_what_is_no_announcement_of_that_replica_is_passed_by(seen: Announcements, value: bytes) -> None:
    seen.receive("there", value)
    assert seen.others == []


def test_another_process_with_our_name_is_not_taken_for_us_or_for_another(seen: Announcements) -> None:
    seen.receive("here", announcement("here", url="http://elsewhere:1"))
    assert seen.others == []
    assert not seen.gone("there")
