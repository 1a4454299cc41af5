"""The HTTP response with the answers to a request: whole, or as server-sent events."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import structlog
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from services.inference.engine_thread import Token
from services.inference.generation import AnswerTask, End, Generator
from services.inference.http import openai_format
from services.inference.http.choices import answers
from services.inference.http.disconnect import ClosingStream, unless_gone
from services.inference.http.requested import Asked
from services.inference.http.schemas import CompletionRequest, GenerationRequest
from services.inference.pieces import Piece

log = structlog.get_logger()


def tells_usage(body: GenerationRequest) -> bool:
    """Whether its stream is to end with a chunk that carries the usage."""
    return bool(body.stream_options and body.stream_options.include_usage)


async def answer(
    body: GenerationRequest,
    form: openai_format.Form,
    tasks: Sequence[AnswerTask],
    asked: Sequence[Asked],
    *,
    request: Request,
    generator: Generator,
) -> Response:
    """The response with every answer, whole or as server-sent events.

    Raises what `Generator.answer` raises, before the first byte of a stream.
    """
    prompt_tokens = sum(len(one.ids) for one in asked)
    if not body.stream:
        whole = await unless_gone(request, _whole(body, tasks, asked, generator))
        return Response(status_code=499) if whole is None else JSONResponse(form.whole(whole, prompt_tokens))
    pieces = answers(generator, tasks, tasks[0].chosen.hosted.backend.rows)
    try:
        # What can be refused is refused before the first byte, with its own status.
        first = await unless_gone(request, anext(pieces))
    except BaseException:
        await pieces.aclose()
        raise
    if first is None:
        await pieces.aclose()
        return Response(status_code=499)

    async def events() -> AsyncIterator[str]:
        produced = 0
        for index in range(len(tasks)):
            for chunk in form.begin(index):
                yield chunk
        try:
            async for index, piece in _from(first, pieces):
                yield form.chunk(index, piece)
                produced += piece.completion_tokens if isinstance(piece, End) else 0
            if tells_usage(body):
                yield form.usage_chunk(prompt_tokens, produced)
        except Exception as error:
            log.exception("stream_failed", generation_id=tasks[0].generation_id)
            yield form.error(error)
            return
        yield form.done()

    return ClosingStream(
        events(),
        pieces,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _whole(
    body: GenerationRequest, tasks: Sequence[AnswerTask], asked: Sequence[Asked], generator: Generator
) -> list[openai_format.Answered]:
    """Every answer, in their order."""
    echoes: list[openai_format.Echo | None] = [None] * len(tasks)
    if isinstance(body, CompletionRequest) and body.echo:
        of_prompts = [
            await _echo(one, task, body.top, generator) for one, task in zip(asked, tasks[:: body.n], strict=True)
        ]
        echoes = [echo for echo in of_prompts for _ in range(body.n)]
    got: list[list[Piece]] = [[] for _ in tasks]
    ends = [End("length", 0)] * len(tasks)
    if tasks[0].sampling.max_tokens:
        async with aclosing(answers(generator, tasks, tasks[0].chosen.hosted.backend.rows)) as pieces:
            async for index, piece in pieces:
                if isinstance(piece, End):
                    ends[index] = piece
                else:
                    got[index].append(piece)
    return [openai_format.Answered(*one) for one in zip(got, ends, echoes, strict=True)]


async def _echo(one: Asked, task: AnswerTask, top: int | None, generator: Generator) -> openai_format.Echo:
    text = task.chosen.hosted.vocabulary.decode(one.ids, skip_special_tokens=False)
    if top is None:
        return openai_format.Echo(text)
    scored = await generator.scores(task, top) if len(one.ids) > 1 else []
    return openai_format.Echo(text, [Token(one.ids[0], 0.0), *scored], one.offsets)


async def _from(
    first: tuple[int, Piece | End], rest: AsyncIterator[tuple[int, Piece | End]]
) -> AsyncIterator[tuple[int, Piece | End]]:
    yield first
    async for piece in rest:
        yield piece
