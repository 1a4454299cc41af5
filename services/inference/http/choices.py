"""Several answers to one request, given side by side."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

from fleet_kit import tasks
from services.inference.answer_task import AnswerTask, End
from services.inference.generation import Generator
from services.inference.pieces import Piece
from services.inference.reading_once import reading_once


async def answers(
    generator: Generator, wanted: Sequence[AnswerTask], at_once: int
) -> AsyncGenerator[tuple[int, Piece | End], None]:
    """(number of its task, piece) as they come, each task's own pieces in order; close the generator to cancel.

    at_once: answers that are with the back end at a time, so that one request does not fill the queue. Raises what
    `Generator.answer` raises for any of them; the others are cancelled then.
    """
    if len(wanted) == 1:
        async with aclosing(generator.answer(wanted[0])) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    come: asyncio.Queue[tuple[int, Piece | End | Exception]] = asyncio.Queue()
    turns = asyncio.Semaphore(at_once)

    async def give(number: int, task: AnswerTask) -> None:
        try:
            async with turns, aclosing(generator.answer(task)) as pieces:
                async for piece in pieces:
                    come.put_nowait((number, piece))
        except Exception as error:  # for the reader of the pieces
            come.put_nowait((number, error))

    running = [asyncio.create_task(give(number, task)) for number, task in enumerate(wanted)]
    left = len(wanted)
    try:
        while left:
            number, come_now = await come.get()
            if isinstance(come_now, Exception):
                raise come_now
            left -= isinstance(come_now, End)
            yield number, come_now
    finally:
        await tasks.end(*running)


async def answers_by_prompt(
    generator: Generator, wanted: Sequence[AnswerTask], at_once: int
) -> AsyncGenerator[tuple[int, Piece | End], None]:
    """As `answers`; those of one prompt have it read once, where the back end can."""
    async with AsyncExitStack() as closing:
        together = reading_once(wanted, at_once, closing)
        async with aclosing(answers(generator, together, at_once)) as pieces:
            async for piece in pieces:
                yield piece
