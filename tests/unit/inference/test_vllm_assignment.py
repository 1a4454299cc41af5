"""Where adapters belong: every name somewhere, no server overfull, and little moves when servers come and go."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.inference.vllm.assignment import SPARE, assign, rendezvous

names = st.lists(st.text("abcdef", min_size=1), unique=True, max_size=40)
servers = st.lists(st.text("uvwxyz", min_size=1), unique=True, min_size=1, max_size=6)


@given(names, servers, st.integers(1, 3), st.integers(1, 50))
def test_every_adapter_lies_on_as_many_servers_as_asked_and_none_is_overfull(
    names: list[str], servers: list[str], copies: int, most: int
) -> None:
    placed = assign(names, servers, copies=copies, most=most)
    assert set(placed) == set(names)
    wanted = min(copies, len(servers))
    assert all(len(set(at)) == wanted for at in placed.values())
    held = Counter(server for at in placed.values() for server in at)
    even = len(names) * wanted / len(servers)
    assert all(count <= SPARE * even + wanted for count in held.values())


def test_a_server_is_held_to_its_most_while_the_others_have_room() -> None:
    names = [f"adapter-{number}" for number in range(12)]
    placed = assign(names, ["one", "two", "three"], copies=1, most=4)
    assert Counter(server for at in placed.values() for server in at) == {"one": 4, "two": 4, "three": 4}


def test_with_too_few_servers_everything_is_still_somewhere() -> None:
    placed = assign([f"adapter-{number}" for number in range(12)], ["one"], copies=2, most=4)
    assert all(at == ("one",) for at in placed.values())
    assert assign(["adapter"], [], copies=1, most=4) == {}


@given(names, servers, st.integers(1, 3))
def test_a_server_that_leaves_changes_no_preference_among_the_others(
    names: list[str], servers: list[str], copies: int
) -> None:
    for name in names:
        order = rendezvous(name, servers)
        assert rendezvous(name, servers[1:]) == [server for server in order if server != servers[0]]


def test_most_adapters_stay_where_they_are_when_a_server_leaves() -> None:
    names = [f"adapter-{number}" for number in range(100)]
    before = assign(names, ["one", "two", "three", "four"], copies=1, most=100)
    after = assign(names, ["one", "two", "three"], copies=1, most=100)
    stayed = sum(before[name] == after[name] for name in names if before[name] != ("four",))
    assert stayed >= 0.75 * sum(at != ("four",) for at in before.values())


@given(names, servers, st.integers(1, 3))
def test_the_same_question_has_the_same_answer_in_every_process(
    names: list[str], servers: list[str], copies: int
) -> None:
    assert assign(names, servers, copies=copies, most=9) == assign(names, servers[::-1], copies=copies, most=9)
