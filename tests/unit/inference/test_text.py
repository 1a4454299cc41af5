"""Text from tokens: the pieces of a stream make up the whole answer, whatever the tokens are."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.detokenizer import TextStream


class Bytes:
    """A tokenizer of ours: token n is the byte n, so that characters of several bytes are split."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(token_ids).decode(errors="replace")


def deltas(text: str, stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    stream = TextStream(Bytes(), stop)
    got = []
    for byte in text.encode():
        got.append(stream.feed(byte))
        if stream.stopped:
            return got, True
    return [*got, stream.finish()], stream.stopped


@given(st.text())
def test_the_deltas_of_any_text_make_up_the_text(text: str) -> None:
    assert "".join(deltas(text)[0]) == text


@given(st.text())
def test_no_delta_shows_half_a_character(text: str) -> None:
    if "�" not in text:
        assert all("�" not in delta for delta in deltas(text)[0])


@given(st.text("ab€", max_size=30), st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    got, stopped = deltas(text, stop)
    assert stopped == any(one in text for one in stop)
    shown = "".join(got)
    assert text.startswith(shown)
    assert not any(one in shown for one in stop)
    if not stopped:
        assert shown == text


def test_what_could_begin_a_stop_string_is_held_back_until_it_is_none() -> None:
    stream = TextStream(Bytes(), ["END"])
    assert [stream.feed(byte) for byte in b"xENx"] == ["x", "", "", "ENx"]


@pytest.mark.parametrize("text", ["ünïcödé", "日本語", "🦙🦙"])
def test_whole_characters_come_as_soon_as_they_are_complete(text: str) -> None:
    got, _ = deltas(text)
    assert [delta for delta in got if delta] == list(text)
