"""Answers to one prompt that start together, so that the back end reads it once, and what each of them holds."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import groupby

from services.inference.answer_task import AnswerTask
from services.inference.backend import ReadsOnce
from services.inference.engine_thread import Stream
from services.inference.siblings import Siblings


def lease_of(task: AnswerTask) -> AbstractAsyncContextManager[object]:
    """Of the adapters of an answer, which it may hold already."""
    if task.held is not None:
        return task.held.pop_all()
    return task.chosen.hosted.adapters.lease_all(task.chosen.adapters, task.wait_credit)


def stream_of(task: AnswerTask) -> Stream:
    """What the back end delivers of an answer, which may have begun together with others."""
    if task.siblings is not None:
        return task.siblings.streams[task.choice]
    return task.chosen.hosted.backend.generate(task.request)


def reading_once(tasks: Sequence[AnswerTask], most: int, closing: AsyncExitStack) -> list[AnswerTask]:
    """The same answers; those of one prompt start together where the back end then reads it once.

    most: answers that start together. closing: ends those that have not begun.
    """
    found: list[AnswerTask] = []
    for _, group in groupby(tasks, key=lambda task: id(task.prompt_ids)):
        of_prompt = list(group)
        for begin in range(0, len(of_prompt), most):
            some = of_prompt[begin : begin + most]
            backend = some[0].chosen.hosted.backend
            if len(some) == 1 or not isinstance(backend, ReadsOnce):
                found += some
                continue
            streams = closing.enter_context(backend.together([task.request for task in some]))
            siblings = Siblings(partial(lease_of, some[0]), streams)
            closing.push_async_callback(siblings.close)
            found += [replace(task, siblings=siblings, choice=choice) for choice, task in enumerate(some)]
    return found
