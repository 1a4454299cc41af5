"""The base model's tokenizer: token ids of a request's prompts, and text of the model's tokens."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING

from lora_core.chat_template import ChatTemplate
from lora_core.grammar import Grammars
from lora_core.template_errors import TemplateRefuses, TemplateTooCostly, UnknownVariables
from services.inference.errors import BadRequest
from services.inference.metrics import TEMPLATE_LIMITS
from services.inference.reasoning import THINK, ThoughtMarks
from services.inference.token_bytes import TokenBytes
from services.inference.tool_calls.format import ToolFormat, of_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_TAIL = 32
"""Tokens that hold a mark and white space behind it."""
_Render = Callable[[Sequence[Mapping[str, object]]], str]


class Vocabulary:
    """Turns text into token ids and back.

    embeddings: how many tokens the model has embeddings of; a tokenizer may have more, which cannot be served.
    ends: the model's tokens that end an answer.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", embeddings: int | None = None, ends: Collection[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._size = len(tokenizer) if embeddings is None else min(len(tokenizer), embeddings)
        self._template = ChatTemplate.of(tokenizer)
        self.bytes = TokenBytes(tokenizer)
        self.grammars = Grammars(tokenizer, self._size, ends)
        # A thread of its own: a template that takes its time delays no other base model's requests.
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="chat template")

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    def close(self) -> None:
        """Ends the process that renders the chat template."""
        self._rendering.shutdown(wait=False, cancel_futures=True)
        if self._template is not None:
            self._template.close()

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids, byte for byte: no space is tidied away."""
        text = self._tokenizer.decode(
            token_ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text if isinstance(text, str) else "".join(text)

    def split_stops(self, stops: Sequence[str]) -> tuple[tuple[str, ...], frozenset[int]]:
        """Stop strings that can come in an answer's text, and the special tokens that the others begin with.

        Special tokens are no text, so that a stop string such as `<|im_end|>` would never be found.
        """
        added = self._tokenizer.added_tokens_decoder if stops else {}
        special = {str(one.content): int(number) for number, one in added.items() if one.special}
        begins = {stop: number for stop in stops for name, number in special.items() if stop.startswith(name)}
        return tuple(stop for stop in stops if stop not in begins), frozenset(begins.values())

    def check_ids(self, ids: Collection[int], param: str) -> None:
        """Raises `BadRequest` for an id outside of the vocabulary, or of which the model has no embedding."""
        largest = max(ids, default=0)
        if largest >= self._size:
            raise BadRequest(
                f"token id {largest} is outside of the model's vocabulary (0 to {self._size - 1}).",
                code="invalid_value",
                param=param,
            )

    def check_own(self, ids: Sequence[int], param: str) -> None:
        """Raises `BadRequest` for ids that this vocabulary would not make of their text: they are another one's."""
        self.check_ids(ids, param)
        text = self.decode(list(ids), skip_special_tokens=False)
        if self._ids(text) != list(ids):
            raise BadRequest(
                "the token ids are not those that this model's tokenizer makes of their text: send text "
                "(LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False).",
                code="invalid_value",
                param=param,
            )

    async def of_turns(
        self,
        turns: Sequence[Mapping[str, object]],
        extra: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> list[int]:
        """As `of_chat`, off the event loop, of turns with all that templates read of them.

        tools: what the answer may call, as the request has it.
        """
        render = partial(self._render, turns, extra, tools)
        return self._ids(await asyncio.get_running_loop().run_in_executor(self._rendering, render))

    def of_chat(self, turns: Sequence[tuple[str, str]], extra: Mapping[str, object] | None = None) -> list[int]:
        """The conversation, turns of (role, text), in the model's own chat template, up to where the assistant begins.

        extra: the request's `chat_template_kwargs`.

        Raises:
            BadRequest: the template refuses it or takes too much for it, reads no variable of such a name, or the model
                has none.
        """
        return self._ids(self._render([{"role": role, "content": content} for role, content in turns], extra, ()))

    async def tool_format(self) -> ToolFormat | None:
        """How this model writes calls; None where its template shows it none, or not in a form that is read here."""
        if self._template is None:
            return None
        found = of_template(self._template.text)
        if found is None or not await asyncio.to_thread(getattr, self._template, "reads_tools"):
            return None
        special = {str(one.content) for one in self._tokenizer.added_tokens_decoder.values() if one.special}
        # Special tokens are no text: what is read as text must not be one, and what is none must be.
        unread = any(one in found.begin or one in found.end for one in special)
        return None if unread or (found.marker and found.marker not in special) else found

    @cached_property
    def thoughts(self) -> ThoughtMarks | None:
        """The marks around what this model thinks; None where neither template nor tokenizer has them as text."""
        added = {str(one.content): bool(one.special) for one in self._tokenizer.added_tokens_decoder.values()}
        marks = (THINK.begin, THINK.end)
        if any(added.get(mark, False) for mark in marks):
            return None
        template = "" if self._template is None else self._template.text
        return THINK if all(mark in added for mark in marks) or any(mark in template for mark in marks) else None

    def ends_thinking(self, ids: Sequence[int]) -> bool:
        """Whether a prompt ends within a thought: with the first of the marks."""
        tail = self.decode(list(ids[-_TAIL:]), skip_special_tokens=False)
        return self.thoughts is not None and tail.rstrip().endswith(self.thoughts.begin)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(
        self,
        messages: Sequence[Mapping[str, object]],
        extra: Mapping[str, object] | None,
        tools: Sequence[Mapping[str, object]],
    ) -> str:
        """Raises `BadRequest`: see `of_chat`."""
        if self._template is None:
            raise BadRequest("this base model has no chat template; use /v1/completions.", code="no_chat_template")
        try:
            render = partial(self._template.render, add_generation_prompt=True, extra=extra, tools=tools)
            text = render(messages)
            if not self._shows_results(render, messages, text):
                raise TemplateRefuses("it leaves turns of role tool out; send their content as a user's")
            if not self._shows_calls(render, messages, text):
                raise TemplateRefuses("it leaves tool_calls out; send them as the turn's content")
        except TemplateRefuses as error:
            raise BadRequest(
                f"the model's chat template refuses this conversation: {error}", code="invalid_value", param="messages"
            ) from error
        except UnknownVariables as error:
            raise BadRequest(f"{error}.", code="invalid_value", param="chat_template_kwargs") from error
        except TemplateTooCostly as error:
            TEMPLATE_LIMITS.labels(error.limit).inc()
            raise BadRequest(f"{error}; use /v1/completions.", code="template_too_costly", param="messages") from error
        return text

    @staticmethod
    def _shows_results(render: _Render, messages: Sequence[Mapping[str, object]], text: str) -> bool:
        """Templates that know no role `tool` drop such turns in silence: then the text is the same without them."""
        return _changes(render, messages, [one for one in messages if one["role"] != "tool"], text)

    @staticmethod
    def _shows_calls(render: _Render, messages: Sequence[Mapping[str, object]], text: str) -> bool:
        """Templates that know no calls drop them in silence: then the text is the same without them."""
        kept = [{name: member for name, member in one.items() if name != "tool_calls"} for one in messages]
        return _changes(render, messages, kept, text)

    def ids_of(self, text: str | list[int]) -> list[int]:
        """Token ids of a plain text, or of one that is token ids already."""
        return list(self._tokenizer(text)["input_ids"]) if isinstance(text, str) else text

    def count(self, text: str | list[int]) -> int:
        """Tokens of a plain text, or of one that is token ids already."""
        return len(self.ids_of(text))

    def of_text(self, prompt: str) -> tuple[list[int], list[int]]:
        """Token ids of a plain prompt, and the character at which each of them begins.

        Raises:
            BadRequest: a text of no tokens.
        """
        encoded = self._tokenizer(prompt, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        if not ids:
            raise BadRequest("the prompt has no tokens.", code="invalid_value", param="prompt")
        return ids, [begin for begin, _ in encoded["offset_mapping"]]

    def of_ids(self, prompt: list[int]) -> tuple[list[int], list[int]]:
        """As `of_text`, of ids that the caller made.

        Raises:
            BadRequest: ids outside of the vocabulary.
        """
        self.check_ids(prompt, "prompt")
        offsets, length = [], 0
        for one in prompt:
            offsets.append(length)
            length += len(self.decode([one], skip_special_tokens=False))
        return prompt, offsets


def _changes(
    render: _Render, messages: Sequence[Mapping[str, object]], others: Sequence[Mapping[str, object]], text: str
) -> bool:
    """Whether messages that are not quite these have another text, or are refused; true where they are the same."""
    if list(others) == list(messages):
        return True
    try:
        return render(others) != text
    except TemplateRefuses:
        return True
