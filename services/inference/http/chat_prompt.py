"""A conversation as the model that answers it reads it, and the form that its answers have."""

from __future__ import annotations

from services.inference.answer_reader import AnswerFormat
from services.inference.chosen import Chosen
from services.inference.errors import Unsupported
from services.inference.http.requested import PromptRequest, prompt_request
from services.inference.http.schemas import ChatRequest
from services.inference.http.structured import grammar_of
from services.inference.http.tools import calls_of


async def chat_prompt(body: ChatRequest, chosen: Chosen) -> tuple[PromptRequest, AnswerFormat]:
    """The prompt, and how its answers are read.

    Raises:
        BadRequest: a form that cannot be held, a conversation that the template refuses, a prompt that is too long.
        Unsupported: tools that the model cannot be shown, or whose calls its back end cannot hold it to.
    """
    vocabulary = chosen.hosted.vocabulary
    wanted = body.form()
    calls = await calls_of(body, vocabulary, wanted)
    if calls and not chosen.hosted.backend.holds_calls:
        raise Unsupported(
            f"base model {chosen.base.name!r} is served by vLLM, which is not asked for calls: describe the functions "
            "in the system message, set response_format, and read the answer yourself.",
            code="tools_unsupported",
            param="tools",
        )
    grammar = await grammar_of(body, vocabulary, calls[1] if calls else None)
    offered = [one.shown for one in body.offered]
    ids = await vocabulary.of_turns([one.shown for one in body.messages], body.chat_template_kwargs, offered)
    # Calls are no text that a sample could hold: such a conversation is recorded nowhere.
    turns = [] if body.calls_functions else [one.turn for one in body.messages]
    most = body.max_completion_tokens or body.max_tokens
    prompt = prompt_request(body, most, ids, chosen, grammar=grammar, turns=turns)
    written = calls[0] if calls else None
    # What is held to a form from its first character on has no thought before it.
    free = wanted is None and (written is None or (written.anywhere and not body.must_call))
    if not free or vocabulary.thoughts is None:
        return prompt, AnswerFormat(written)
    return prompt, AnswerFormat(written, vocabulary.thoughts, begun=vocabulary.ends_thinking(ids))
