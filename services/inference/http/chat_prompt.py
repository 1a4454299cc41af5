"""A conversation as the model that answers it reads it, and the form that its answers have."""

from __future__ import annotations

from services.inference.chosen import Chosen
from services.inference.http.requested import PromptRequest, prompt_request
from services.inference.http.schemas import ChatRequest
from services.inference.http.structured import grammar_of
from services.inference.http.tools import calls_of
from services.inference.tool_calls.format import ToolFormat


async def chat_prompt(body: ChatRequest, chosen: Chosen) -> tuple[PromptRequest, ToolFormat | None]:
    """The prompt, and how its answers call where they may.

    Raises:
        BadRequest: a form that cannot be held, a conversation that the template refuses, a prompt that is too long.
        Unsupported: tools that the model cannot be shown.
    """
    vocabulary = chosen.hosted.vocabulary
    calls = await calls_of(body, vocabulary)
    grammar = await grammar_of(body, vocabulary, calls[1] if calls else None)
    offered = [one.shown for one in body.offered]
    ids = await vocabulary.of_turns([one.shown for one in body.messages], body.chat_template_kwargs, offered)
    # Calls are no text that a sample could hold: such a conversation is recorded nowhere.
    turns = [] if body.calls_functions else [one.turn for one in body.messages]
    most = body.max_completion_tokens or body.max_tokens
    return prompt_request(body, most, ids, chosen, grammar=grammar, turns=turns), calls[0] if calls else None
