"""The HTTP response with the answers to a request: whole, or as server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import structlog
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from services.inference.answer_task import AnswerTask, End
from services.inference.engine_thread import Token
from services.inference.generation import Generator
from services.inference.http import openai_format
from services.inference.http.choices import answers, answers_by_prompt
from services.inference.http.disconnect import ClosingStream, unless_gone
from services.inference.http.requested import PromptRequest
from services.inference.http.schemas import CompletionRequest, GenerationRequest
from services.inference.pieces import Piece

log = structlog.get_logger()


def wants_usage(body: GenerationRequest) -> bool:
    """Whether its stream is to end with a chunk that carries the usage."""
    return bool(body.stream_options and body.stream_options.include_usage)


async def answer(
    body: GenerationRequest,
    form: openai_format.Form,
    tasks: Sequence[AnswerTask],
    prompts: Sequence[PromptRequest],
    *,
    request: Request,
    generator: Generator,
    begun: int = 1,
) -> Response:
    """The response with every answer, whole or as server-sent events.

    It ends once the bus has what was published and recorded of the answers, so that a replica that is killed afterwards
    takes nothing of them along; see `Publications`.

    begun: so many of the answers have begun before the first byte of a stream.

    Raises what `Generator.answer` raises for any of these, before the first byte of a stream.
    """
    prompt_tokens = sum(len(one.ids) for one in prompts)
    if not body.stream:
        whole = await unless_gone(request, _whole(body, tasks, prompts, generator))
        return Response(status_code=499) if whole is None else JSONResponse(await form.whole(whole, prompt_tokens))
    pieces = _pieces(body, tasks, generator)

    async def begin() -> tuple[Sequence[openai_format.Echo | None], list[tuple[int, Piece | End]]]:
        return await _echoes(body, tasks, prompts, generator), await _until_begun(pieces, begun)

    try:
        # What can be refused is refused before the first byte, with its own status.
        ready = await unless_gone(request, begin())
    except BaseException:
        await pieces.aclose()
        raise
    if ready is None:
        await pieces.aclose()
        return Response(status_code=499)
    echoes, first = ready

    async def events() -> AsyncIterator[str]:
        produced = 0
        for index, echo in enumerate(echoes):
            for chunk in form.begin(index, echo):
                yield chunk
        try:
            async for index, piece in _from(first, pieces):
                yield form.chunk(index, piece)
                produced += piece.completion_tokens if isinstance(piece, End) else 0
            await generator.publications.settled()
            if wants_usage(body):
                yield form.usage_chunk(prompt_tokens, produced)
        except Exception as error:
            log.exception("stream_failed", generation_id=tasks[0].generation_id)
            yield form.error(error)
            return
        yield await form.done()

    return ClosingStream(
        events(),
        pieces,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _whole(
    body: GenerationRequest, tasks: Sequence[AnswerTask], prompts: Sequence[PromptRequest], generator: Generator
) -> list[openai_format.Answered]:
    """Every answer, in their order."""
    echoes = await _echoes(body, tasks, prompts, generator)
    got: list[list[Piece]] = [[] for _ in tasks]
    ends = [End("length", 0)] * len(tasks)
    async with aclosing(_pieces(body, tasks, generator)) as pieces:
        async for index, piece in pieces:
            if isinstance(piece, End):
                ends[index] = piece
            else:
                got[index].append(piece)
    await generator.publications.settled()
    return [openai_format.Answered(*one) for one in zip(got, ends, echoes, strict=True)]


def _pieces(
    body: GenerationRequest, tasks: Sequence[AnswerTask], generator: Generator
) -> AsyncGenerator[tuple[int, Piece | End], None]:
    """(number of the answer, piece) as they come."""
    if not tasks[0].sampling.max_tokens:
        return _nothing(len(tasks))
    give = answers if body.n == 1 else answers_by_prompt
    return give(generator, tasks, tasks[0].chosen.hosted.backend.rows)


async def _nothing(answers: int) -> AsyncGenerator[tuple[int, Piece | End], None]:
    """Answers of no tokens."""
    for index in range(answers):
        yield index, End("length", 0)


async def _echoes(
    body: GenerationRequest, tasks: Sequence[AnswerTask], prompts: Sequence[PromptRequest], generator: Generator
) -> Sequence[openai_format.Echo | None]:
    """The prompt of each answer, where it is to be echoed."""
    if not (isinstance(body, CompletionRequest) and body.echo):
        return [None] * len(tasks)
    firsts = zip(prompts, tasks[:: body.n], strict=True)
    of_prompts = [await _echo(one, task, body.top, generator) for one, task in firsts]
    return [echo for echo in of_prompts for _ in range(body.n)]


async def _echo(one: PromptRequest, task: AnswerTask, top: int | None, generator: Generator) -> openai_format.Echo:
    text = task.chosen.hosted.vocabulary.decode(one.ids, skip_special_tokens=False)
    if top is None:
        return openai_format.Echo(text)
    scored = await generator.scores(task, top) if len(one.ids) > 1 else []
    return openai_format.Echo(text, [Token(one.ids[0], 0.0), *scored], one.offsets)


async def _until_begun(pieces: AsyncIterator[tuple[int, Piece | End]], answers: int) -> list[tuple[int, Piece | End]]:
    """What comes until so many answers have begun."""
    came = [await anext(pieces)]
    while len({number for number, _ in came}) < answers:
        came.append(await anext(pieces))
    return came


async def _from(
    first: Sequence[tuple[int, Piece | End]], rest: AsyncIterator[tuple[int, Piece | End]]
) -> AsyncIterator[tuple[int, Piece | End]]:
    for piece in first:
        yield piece
    async for piece in rest:
        yield piece
