"""Lines of JSON and server-sent events, whatever letters are in them and however they are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_kit.text_lines import async_lines_of, lines_of

pytestmark = pytest.mark.unit

TEXTS = ["one\u2028two", "ü\u0085\x0b\x0c\x1c", "plain", ""]
BODY = "\r\n".join(json.dumps(text, ensure_ascii=False) for text in TEXTS).encode()


@given(st.integers(1, len(BODY)), st.booleans())
async def test_a_line_ends_at_a_line_feed_alone_however_the_text_is_cut(cut: int, ended: bool) -> None:
    body = BODY + b"\n" * ended
    pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
    assert [json.loads(line) for line in lines_of(iter(pieces))] == TEXTS

    async def coming():  # type: ignore[no-untyped-def]
        for piece in pieces:
            yield piece

    assert [json.loads(line) async for line in async_lines_of(coming())] == TEXTS
