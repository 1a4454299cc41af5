import json
import time
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events.strict_json import MAX_CONTAINERS, MAX_DEPTH, read_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=30)


@given(DOCUMENTS)
def test_what_json_writes_is_read_as_it_was(document: object) -> None:
    assert read_json(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"a": NaN}', "expected value"),
        (b'{"a": -Infinity}', "expected value|invalid number"),
        (b'{"a": [1e999]}', r"a\.0: number outside"),
        (b'{"a": 9223372036854775808}', "a: integer outside"),
        (b'{"a": ' + b"1" * 4000 + b"}", "a: integer outside"),
        (b'{"a": ' + b"1" * 5000 + b"}", "out of range"),
        (b'{"a": "x\\u0000"}', "a: character 1 is NUL"),
        (b'{"a": {"\\u0000": 1}}', "a: a key's character 0 is NUL"),
        (b'{"a": "\\ud800"}', "hex escape"),
        (b'{"a": "\xed\xa0\x80"}', "invalid unicode"),
        (b"[" * 5000 + b"]" * 5000, "recursion limit"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b"", "EOF"),
    ],
)
def test_what_no_part_of_the_fleet_can_hold_is_refused_with_its_place(body: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_json(body)


def test_one_byte_order_mark_before_a_document_is_passed_over() -> None:
    mark = b"\xef\xbb\xbf"
    assert read_json(mark + b'{"a": "\xef\xbb\xbf"}') == {"a": "\ufeff"}
    with pytest.raises(ValueError, match="expected value"):
        read_json(mark + mark + b"{}")


def test_the_deepest_allowed_document_is_read() -> None:
    assert read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None


def test_more_arrays_than_are_read_are_refused_before_they_are_made() -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="more than 200000 arrays"):
        read_json(b"[" + b"[]," * 10_000_000 + b"[]]")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["[" * 300_000, '\\"[{' * 200_000, '"' * 300_000])
def test_brackets_within_text_are_no_arrays(text: str) -> None:
    assert read_json(json.dumps({"text": text})) == {"text": text}


def test_text_that_does_not_end_is_looked_through_once() -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="EOF"):
        read_json(b'{"text": "' + b'\\"[' * 400_000)
    assert time.process_time() - started < 2


def test_reading_as_many_arrays_as_are_allowed_takes_time_in_proportion_to_their_number() -> None:
    def seconds(count: int) -> float:
        body = b"[" + b"[]," * (count - 2) + b"[]]"
        return min(timeit.repeat(lambda: read_json(body), timer=time.process_time, number=1, repeat=3))

    assert seconds(MAX_CONTAINERS) < 20 * seconds(MAX_CONTAINERS // 10)
