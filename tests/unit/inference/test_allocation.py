"""Who gets a slot, who leaves it, who gives way."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.inference.slots.allocation import Allocation, Candidate, Occupant, Priority, Room, Rules, allocate

NOW = 100.0


def wants(
    adapter_id: str,
    domain: str = "law",
    priority: Priority = Priority.REQUEST,
    since: float = NOW,
    size: int = 1,
) -> Candidate:
    return Candidate(adapter_id, domain, priority, since, size)


def idle(adapter_id: str, domain: str = "law", last_used: float = 0.0, size: int = 1) -> Occupant:
    return Occupant(adapter_id, domain, size, last_used, idle=True)


def busy(adapter_id: str, domain: str = "law", last_used: float = 0.0, size: int = 1) -> Occupant:
    return Occupant(adapter_id, domain, size, last_used, busy=True)


def placed(
    candidates: list[Candidate],
    held: list[Occupant],
    slots: int,
    rules: Rules | None = None,
    *,
    leaving: int = 0,
    yielding: int = 0,
) -> Allocation:
    """With memory for an adapter of size 1 in each slot."""
    free = Room(slots, slots) - Room.of(one.size for one in held)
    return allocate(candidates, held, free, Room(leaving, leaving), Room(yielding, yielding), NOW, rules or Rules())


def sharing(candidates: list[Candidate], held: list[Occupant], memory: int) -> Allocation:
    """With more slots than adapters, that share this memory."""
    return allocate(
        candidates, held, Room(99, memory) - Room.of(one.size for one in held), Room(), Room(), NOW, Rules()
    )


@pytest.mark.requirement("AS-4.1")
def test_requests_go_before_pins_pins_before_workflows_then_predictions_then_activations() -> None:
    queue = [wants(one.name, priority=one, since=NOW - one) for one in reversed(Priority)]
    assert placed(queue, [], 9).load == ("REQUEST", "PINNED", "WORKFLOW", "PREDICTION", "ACTIVATION")


def test_the_request_of_the_domain_that_holds_fewer_slots_goes_first() -> None:
    queue = [wants("law-2", "law", since=NOW - 1), wants("tax-1", "tax", since=NOW)]
    assert placed(queue, [busy("law-1", "law")], 2).load == ("tax-1",)


def test_slots_that_come_free_at_once_are_shared_out_among_the_domains() -> None:
    queue = [wants(f"law-{n}", "law", since=NOW - 1) for n in range(4)] + [wants("tax", "tax"), wants("hr", "hr")]
    assert set(placed(queue, [], 3).load) == {"law-0", "tax", "hr"}


def test_room_is_made_by_the_domain_that_holds_the_most_least_recently_used_first() -> None:
    held = [idle("tax-1", "tax", 1), idle("law-1", "law", 3), idle("law-2", "law", 2)]
    assert placed([wants("hr", "hr")], held, 3).evict == ("law-2",)


def test_a_request_that_has_waited_too_long_goes_before_all_that_came_after_it_of_any_domain() -> None:
    queue = [wants("law-2", "law", since=NOW - 3), wants("tax-1", "tax", since=NOW - 1)]
    assert placed(queue, [busy("law-1", "law")], 2).load == ("law-2",)


def test_where_every_slot_is_in_use_one_gives_way_to_a_request_that_has_waited_too_long_and_only_one() -> None:
    held = [busy("law-1", "law", 2), busy("law-2", "law", 1), busy("tax-1", "tax", 0)]
    late, early = wants("hr-1", "hr", since=NOW - 3), wants("hr-2", "hr", since=NOW)
    assert placed([early, late], held, 3) == Allocation(give_way=("law-2",), short=True)
    assert placed([early, late], held, 3, yielding=1) == Allocation(short=True)
    assert placed([early], held, 3) == Allocation(short=True)


def test_a_slot_that_is_being_emptied_serves_the_first_in_the_queue_and_no_other_adapter_leaves_for_it() -> None:
    assert placed([wants("a")], [idle("b"), Occupant("c", "law", 1, 0)], 2, leaving=1) == Allocation()


def test_what_is_neither_idle_nor_busy_stays() -> None:
    assert placed([wants("a", since=0)], [Occupant("pinned", "law", 1, 0)], 1) == Allocation(short=True)


@pytest.mark.requirement("AS-5.1")
def test_a_prediction_takes_a_free_slot_and_an_idle_one_only_where_the_rules_say_so() -> None:
    likely = [wants("a", priority=Priority.PREDICTION)]
    assert placed(likely, [], 1).load == ("a",)
    assert placed(likely, [idle("b")], 1) == Allocation()
    assert placed(likely, [idle("b")], 1, Rules(replace_idle=True)).evict == ("b",)
    assert placed(likely, [busy("b")], 1, Rules(replace_idle=True)) == Allocation()


def test_what_was_used_since_it_was_predicted_does_not_leave_for_it() -> None:
    likely = [wants("a", priority=Priority.PREDICTION, since=NOW - 5)]
    assert placed(likely, [idle("b", last_used=NOW - 1)], 1, Rules(replace_idle=True)) == Allocation()


@pytest.mark.requirement("AS-6.1")
def test_under_memory_pressure_only_requests_and_pins_are_brought_in() -> None:
    queue = [wants(one.name, priority=one) for one in Priority]
    assert placed(queue, [], 9, Rules(expand=False)).load == ("REQUEST", "PINNED")


@pytest.mark.requirement("AS-4.1")
def test_adapters_take_memory_by_their_size_and_as_many_idle_ones_leave_as_are_needed() -> None:
    held = [idle("a", last_used=1, size=2), idle("b", last_used=2, size=2), busy("c", size=4)]
    assert sharing([wants("small", size=1)], held, 9).load == ("small",)
    assert sharing([wants("large", size=4)], held, 10) == Allocation(evict=("a",))
    assert sharing([wants("large", size=4)], held, 8) == Allocation(evict=("a", "b"))
    assert sharing([wants("larger", size=5)], held, 8) == Allocation(short=True)


def test_a_small_adapter_passes_a_large_one_that_does_not_fit_until_that_one_has_waited_too_long() -> None:
    held = [busy("a", size=6), idle("b", last_used=1, size=1)]
    early, late = wants("large", size=4), wants("large", size=4, since=NOW - 3)
    assert sharing([early, wants("small", size=2)], held, 10) == Allocation(load=("small",), short=True)
    assert sharing([late, wants("small", size=2)], held, 9) == Allocation(evict=("b",), give_way=("a",), short=True)


def test_what_nobody_waits_for_takes_no_room_that_a_request_waits_for() -> None:
    queue = [wants("large", size=4), wants("active", priority=Priority.ACTIVATION, size=1)]
    assert sharing(queue, [busy("a", size=8)], 10) == Allocation(short=True)


DOMAINS = st.sampled_from(["law", "tax", "hr"])
CANDIDATES = st.lists(st.tuples(DOMAINS, st.sampled_from(Priority), st.floats(NOW - 5, NOW)), max_size=8)
HELD = st.lists(st.tuples(DOMAINS, st.sampled_from(["idle", "busy", "neither"]), st.floats(0, NOW)), max_size=6)


@pytest.mark.requirement("AS-4.1")
@given(queue=CANDIDATES, held=HELD, empty=st.integers(0, 4), replace_idle=st.booleans(), expand=st.booleans())
@example(  # the late one is loaded first and counts for its domain
    queue=[("law", Priority.REQUEST, NOW - 5), ("tax", Priority.REQUEST, NOW - 1), ("law", Priority.REQUEST, NOW - 1)],
    held=[("tax", "idle", 0.0)],
    empty=2,
    replace_idle=False,
    expand=False,
)
def test_in_every_state_slots_suffice_and_only_those_leave_that_may(
    queue: list[tuple[str, Priority, float]],
    held: list[tuple[str, str, float]],
    empty: int,
    replace_idle: bool,
    expand: bool,
) -> None:
    candidates = [Candidate(f"c{n}", *one, size=1) for n, one in enumerate(queue)]
    slots = [
        Occupant(f"h{n}", domain, 1, used, idle=kind == "idle", busy=kind == "busy")
        for n, (domain, kind, used) in enumerate(held)
    ]
    rules = Rules(patience=2.0, replace_idle=replace_idle, expand=expand)
    moves = placed(candidates, slots, len(slots) + empty, rules)
    by_id = {one.adapter_id: one for one in [*candidates, *slots]}
    requests = [one for one in candidates if one.priority is Priority.REQUEST]
    assert len(moves.load) <= empty
    assert len(moves.evict) + len(moves.give_way) + len(moves.load) <= len(candidates)
    assert all(by_id[one].idle for one in moves.evict)
    assert all(by_id[one].busy for one in moves.give_way)
    assert len(moves.give_way) <= sum(NOW - one.since >= 2.0 for one in requests)
    # A domain's request is left out only for one that is late, or of a domain that holds no more than it does then.
    early = [one for one in requests if NOW - one.since < 2.0]
    late = [by_id[one] for one in moves.load if by_id[one] not in early]
    shares = {domain: sum(one.domain == domain for one in [*slots, *late]) for domain in ("law", "tax", "hr")}
    for left in (one for one in early if one.adapter_id not in moves.load):
        taken = [by_id[one].domain for one in moves.load if by_id[one] in early]
        assert all(
            shares[other] + taken.count(other) - 1 <= shares[left.domain] + taken.count(left.domain) for other in taken
        )
