"""Several answers to one request run side by side, and end together when one fails or nobody reads on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from services.inference.answer_task import End
from services.inference.errors import Busy
from services.inference.http.choices import answers
from services.inference.pieces import Piece

pytestmark = pytest.mark.unit


class Answering:
    """Gives each job, a number, so many pieces; a negative one fails after its first."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.most = 0

    async def answer(self, job: int) -> AsyncGenerator[Piece | End, None]:
        self.open.add(job)
        self.most = max(self.most, len(self.open))
        try:
            for at in range(abs(job)):
                await asyncio.sleep(0)
                yield Piece(f"{job}.{at}", ())
                if job < 0:
                    raise Busy("full", code="queue_full")
            yield End("stop", abs(job))
        finally:
            self.open.discard(job)


def given(generator: Answering, jobs: list[int], at_once: int = 8) -> AsyncGenerator[tuple[int, Any], None]:
    return answers(generator, jobs, at_once)  # type: ignore[arg-type]


async def test_each_answers_pieces_come_in_order_with_its_number() -> None:
    got: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    async for number, piece in given(Answering(), [2, 3, 1]):
        got[number].append(piece.text if isinstance(piece, Piece) else piece.completion_tokens)
    assert got == {0: ["2.0", "2.1", 2], 1: ["3.0", "3.1", "3.2", 3], 2: ["1.0", 1]}


async def test_no_more_answers_than_the_back_end_has_rows_are_given_at_once() -> None:
    generator = Answering()
    assert len([one async for one in given(generator, [5, 6, 7, 8, 9], at_once=2)]) == 5 + 6 + 7 + 8 + 9 + 5
    assert generator.most == 2


@pytest.mark.parametrize("jobs", [[-1], [50, -1, 60]])
async def test_an_answer_that_fails_ends_the_others_and_is_the_requests_error(jobs: list[int]) -> None:
    generator = Answering()
    with pytest.raises(Busy, match="full"):
        async for _ in given(generator, jobs):
            pass
    assert generator.open == set()


@pytest.mark.parametrize("jobs", [[50], [50, 60, 70]])
async def test_a_reader_that_stops_ends_all_of_them(jobs: list[int]) -> None:
    generator = Answering()
    pieces = given(generator, jobs)
    await anext(pieces)
    await pieces.aclose()
    assert generator.open == set()
