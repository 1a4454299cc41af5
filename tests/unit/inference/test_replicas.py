"""Which replica answers: everybody agrees, little moves when one goes, and no load grows out of proportion."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.inference.replicas.selection import Reason, Replica, Serving, decide, place

BASE = "sha256-of-the-base"
FACTOR = 1.25


def replica(
    name: str, *adapters: str, load: int = 0, rows: int = 8, draining: bool = False, revision: str = BASE
) -> Replica:
    serving = Serving(adapters=frozenset(adapters), running=min(load, rows), waiting=max(0, load - rows), rows=rows)
    return Replica(name=name, url=f"http://{name}:8105", started=1.0, draining=draining, serves={revision: serving})


NAMES = [f"replica-{number}" for number in range(6)]
ADAPTERS = [f"d{number}-lora-v1.0.0" for number in range(12)]
adapter_ids = st.sampled_from(ADAPTERS)
any_load = st.integers(0, 40)


@st.composite
def fleets(draw: st.DrawFn, loads: st.SearchStrategy[int] = any_load) -> list[Replica]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    return [
        replica(
            name,
            *draw(st.sets(adapter_ids, max_size=4)),
            load=draw(loads),
            rows=draw(st.integers(1, 16)),
            draining=draw(st.booleans()),
        )
        for name in names
    ]


@given(fleets(), st.sets(adapter_ids, max_size=3), st.randoms())
def test_everybody_with_the_same_view_names_the_same_replica(fleet: list[Replica], wanted: set[str], order) -> None:
    shuffled = list(fleet)
    order.shuffle(shuffled)
    assert place(wanted, BASE, fleet) == place(sorted(wanted, reverse=True), BASE, shuffled)


@given(fleets(loads=st.just(0)), st.data())
def test_when_a_replica_goes_only_its_adapters_move(fleet: list[Replica], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(fleet))
    rest = [one for one in fleet if one is not gone]
    for adapter in ADAPTERS:
        before = place({adapter}, BASE, fleet)
        if before is not gone:
            assert place({adapter}, BASE, rest) == before


@given(fleets(), st.sets(adapter_ids, max_size=3), st.sampled_from([1.0, FACTOR, 2.0]))
def test_no_replica_gets_more_than_its_rows_or_its_bounded_share_of_the_load(
    fleet: list[Replica], wanted: set[str], factor: float
) -> None:
    chosen = place(wanted, BASE, fleet, factor)
    able = [one for one in fleet if not one.draining]
    assert (chosen is None) == (not able)
    if chosen is not None:
        load, rows = (sum(getattr(one.serves[BASE], field) for one in able) for field in ("load", "rows"))
        mine = chosen.serves[BASE]
        assert not chosen.draining
        assert mine.load + 1 <= max(mine.rows, ceil(factor * (load + 1) * mine.rows / rows))


@given(fleets(loads=st.just(0)), adapter_ids)
def test_a_replica_that_holds_the_adapter_goes_before_those_that_do_not(fleet: list[Replica], wanted: str) -> None:
    holders = [one for one in fleet if not one.draining and wanted in one.serves[BASE].adapters]
    chosen = place({wanted}, BASE, fleet)
    if holders:
        assert chosen in holders


def test_adapters_that_no_replica_holds_are_spread_over_all_replicas() -> None:
    fleet = [replica(name) for name in NAMES[:4]]
    chosen = [place({f"a{number}"}, BASE, fleet) for number in range(400)]
    counts = [chosen.count(one) for one in fleet]
    assert sum(counts) == 400
    assert min(counts) > 60


def test_requests_one_after_the_other_for_one_adapter_fill_its_replica_and_then_the_next() -> None:
    loads = dict.fromkeys(NAMES[:2], 0)
    got = []
    for _ in range(20):
        fleet = [replica(name, load=load, rows=4) for name, load in loads.items()]
        chosen = place({"hot"}, BASE, fleet)
        assert chosen is not None
        loads[chosen.name] += 1
        got.append(chosen.name)
    assert len(set(got[:4])) == 1, "a free row starts a request at once"
    assert max(loads.values()) <= ceil(FACTOR * 20 / 2)


def test_a_replica_of_another_base_model_is_never_chosen() -> None:
    other = replica("other", "wanted", revision="another")
    assert place({"wanted"}, BASE, [other, replica("right")]) == replica("right")
    assert place({"wanted"}, BASE, [other]) is None


def test_of_a_set_the_replica_that_holds_most_is_chosen() -> None:
    fleet = [replica("one", "a"), replica("two", "a", "b"), replica("none")]
    assert place({"a", "b", "c"}, BASE, fleet) == fleet[1]


@pytest.mark.parametrize(
    ("own", "other", "wanted", "answers", "reason", "held"),
    [
        (replica("own", "a"), replica("other", "a"), {"a"}, "own", Reason.HERE, True),
        (replica("own"), replica("other", "a"), {"a"}, "other", Reason.HOLDER, True),
        (replica("own", "a", load=8), replica("other"), {"a"}, "other", Reason.OVERLOADED, False),
        (replica("own", "a", load=8), replica("other", "a", load=8), {"a"}, "own", Reason.HERE, True),
        (replica("own", "a", draining=True), replica("other"), {"a"}, "other", Reason.DRAINING, False),
        (replica("own", draining=True), replica("other", draining=True), {"a"}, "own", Reason.HERE, False),
        (replica("own", load=7), replica("other"), set(), "own", Reason.HERE, True),
        (replica("own", load=8), replica("other", load=3), set(), "other", Reason.OVERLOADED, True),
        (replica("own", draining=True), replica("other"), set(), "other", Reason.DRAINING, True),
        (replica("own"), replica("other", "a", revision="another"), {"a"}, "own", Reason.HERE, False),
    ],
)
def test_a_request_is_answered_where_it_arrived_unless_another_replica_is_better_for_it(
    own: Replica, other: Replica, wanted: set[str], answers: str, reason: Reason, held: bool
) -> None:
    decision = decide(wanted, BASE, own, [other])
    assert (decision.replica.name, decision.reason, decision.held) == (answers, reason, held)


def test_an_adapter_that_no_replica_holds_is_loaded_at_one_replica_wherever_it_is_requested() -> None:
    fleet = [replica(name) for name in NAMES[:3]]
    for adapter in ADAPTERS:
        decisions = [decide({adapter}, BASE, own, [one for one in fleet if one is not own]) for own in fleet]
        assert len({one.replica.name for one in decisions}) == 1
        assert sorted(one.reason for one in decisions) == [Reason.HERE, Reason.PLACED, Reason.PLACED]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@host:1",
        "http://host/path",
        "file:///etc/passwd",
        "http://fd00::7:8105",
        "http://host:1\n",
        "host:8105",
        "",
    ],
)
def test_an_announcement_whose_url_is_more_or_less_than_an_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        Replica(name="one", url=url, started=1.0, serves={})


def test_an_announcement_survives_its_way_over_the_bus() -> None:
    announced = replica("one", "a", "b", load=9, draining=True)
    assert Replica.model_validate_json(announced.model_dump_json()) == announced
