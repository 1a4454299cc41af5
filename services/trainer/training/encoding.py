"""Records as token ids and labels, by the model's own chat template."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from lora_core.base_model import end_of_turn
from lora_core.chat_template import ChatTemplate, RenderLimits
from lora_core.template_errors import ChatTemplateError
from services.trainer.datasets.records import Kind, Message, Record, prompt_messages

IGNORED = -100
"""Label of a position without loss (torch's cross entropy ignores it)."""


TEMPLATE_DATE = datetime(2024, 7, 26)
"""What a chat template that writes today's date (Llama 3.1 and later) is given as today. It is part of what a model is
trained on, so it is the same whenever a job runs or resumes; Llama's own templates fall back to this day."""

_THINK, _THOUGHT = "<think>", "</think>"

_LIMITS = RenderLimits(seconds=10.0, characters=64 << 20)
"""Of one conversation, which may be a whole book."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any
    eos_token_id: int | None
    added_tokens_decoder: dict[int, Any]

    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...

    def get_chat_template(self) -> str: ...

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...


class UnfitTokenizer(ValueError):
    """Completions cannot be trained with this tokenizer and template."""


class UnfitRecord(ValueError):
    """The chat template cannot render this record."""


@dataclass(frozen=True)
class EncodedSample:
    """Token ids of prompt, completion and end of turn; `labels` repeat the ids where loss counts.

    Encoded ones are arrays of 4 bytes a number: all samples of a training are in memory at once.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


Row = tuple[EncodedSample, ...]
"""What one record is trained on: one answer, a chosen and a rejected one, or a list with the best first."""


WANTED_FROM = 2.5
"""Rating, of 0 to 5, from which sft learns an answer of a data set of kind rated: the middle of the scale."""


@dataclass(frozen=True)
class EncodedSet:
    """The rows that fit, and what was left out."""

    rows: tuple[Row, ...]
    too_long: int
    longest: int
    unwanted: int = 0
    """Records that the objective leaves out for their rating."""

    @property
    def tokens(self) -> int:
        return sum(len(sample.input_ids) for row in self.rows for sample in row)

    @property
    def trained_tokens(self) -> int:
        return sum(sample.trained_tokens for row in self.rows for sample in row)


def encode(tokenizer: Tokenizer, prompt: Sequence[Message], completion: str) -> EncodedSample:
    """The ids the served model will see for this prompt, then the completion up to and with its end of turn.

    Prompt and completion are tokenised apart, since generation too begins from the prompt's own ids. Loss is on the
    completion and the end token alone.

    Raises:
        UnfitTokenizer: there is no end token, or the template renders a prompt differently once it is answered.
        UnfitRecord: the template refuses the messages.
    """
    opening = prompt_ids(tokenizer, prompt)
    learned = _learned(tokenizer, prompt, completion)
    return _sample(opening + learned, [IGNORED] * len(opening) + learned)


def encode_conversation(tokenizer: Tokenizer, prompt: Sequence[Message], completion: str) -> Row:
    """Every trained answer of a conversation, each after exactly the ids that serving renders for what precedes it.

    Answers share a sample as long as the ids up to one are the beginning of the ids of the next prompt. A template that
    renders an earlier answer differently once a newer question follows (Qwen3 drops its reasoning) gets a sample for
    each answer. A turn of the assistant before the first question, a greeting, is context alone: no prompt leads to it.

    Raises:
        UnfitTokenizer, UnfitRecord: see `encode`.
    """
    messages = (*prompt, Message("assistant", completion))
    samples: list[EncodedSample] = []
    ids: list[int] = []
    labels: list[int] = []
    first = next((at for at, message in enumerate(prompt) if message.role == "user"), len(prompt))
    for at, message in enumerate(messages):
        if message.role != "assistant" or not message.trained or at < first:
            continue
        opening = prompt_ids(tokenizer, messages[:at])
        if opening[: len(ids)] != ids:
            samples.append(_sample(ids, labels))
            ids, labels = [], []
        learned = _learned(tokenizer, messages[:at], message.content)
        labels = [*labels, *[IGNORED] * (len(opening) - len(ids)), *learned]
        ids = opening + learned
    return (*samples, _sample(ids, labels))


def encode_record(tokenizer: Tokenizer, record: Record, answers: int) -> Row:
    """The first `answers` completions of a record; of a conversation all trained answers, see `encode_conversation`."""
    if record.kind is Kind.CONVERSATION:
        return encode_conversation(tokenizer, record.prompt, record.completions[0])
    return tuple(encode(tokenizer, record.prompt, completion) for completion in record.completions[:answers])


def encode_all(tokenizer: Tokenizer, records: Iterable[Record], max_length: int, *, answers: int = 1) -> EncodedSet:
    """Encode all; a record of which an answer is longer than `max_length` tokens is left out whole and counted, never
    cut."""
    rows: list[Row] = []
    for record in records:
        row = encode_record(tokenizer, record, answers)
        # The samples of a conversation are no alternatives to each other: each is trained by itself.
        rows += [(sample,) for sample in row] if record.kind is Kind.CONVERSATION else [row]
    longest = [max(len(sample.input_ids) for sample in row) for row in rows]
    fitting = tuple(row for row, length in zip(rows, longest, strict=True) if length <= max_length)
    return EncodedSet(fitting, len(rows) - len(fitting), max(longest, default=0))


def prompt_ids(tokenizer: Tokenizer, prompt: Sequence[Message] | str) -> list[int]:
    """Ids of a prompt as generation sees it."""
    messages = prompt_messages(prompt) if isinstance(prompt, str) else prompt
    ids: Sequence[int] = tokenizer(_opening(tokenizer, messages), add_special_tokens=not tokenizer.chat_template)[
        "input_ids"
    ]
    return list(ids)


def _sample(ids: Sequence[int], labels: Sequence[int]) -> EncodedSample:
    return EncodedSample(array("i", ids), array("i", labels))


def _learned(tokenizer: Any, prompt: Sequence[Message], completion: str) -> list[int]:
    """The ids of an answer, ended by the token that ends a turn: what a model that knows its answer generates."""
    ends = [
        end for end in (_end_of_turn(tokenizer, tokenizer.chat_template), tokenizer.eos_token_id) if end is not None
    ]
    if not ends:
        raise UnfitTokenizer("the base model's tokenizer has no end-of-sequence token: answers would never end")
    completion = _ended_once(tokenizer, completion, ends)
    text = _answer_text(tokenizer, prompt, completion)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    for end in ends:
        if end in ids:
            return ids[: ids.index(end) + 1]
    # The template marks the end of a turn with plain text, or not at all: that is not learned.
    text = completion if text.startswith(completion) else text.rstrip()
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], ends[0]]


def _ended_once(tokenizer: Tokenizer, completion: str, ends: Sequence[int]) -> str:
    """The completion without an end token of its own at its end, which the template writes itself.

    Raises:
        UnfitRecord: it continues after the end token, and would be cut there.
    """
    for end in ends:
        token = _text_of(tokenizer, end)
        if not token or token not in completion:
            continue
        before, _, after = completion.partition(token)
        if after.replace(token, "").strip():
            raise UnfitRecord(
                f"a completion has the base model's end-of-turn token {token!r} in its midst, after "
                f"{before[-40:]!r}: what follows would never be learned; remove the token, or make it a conversation"
            )
        completion = before
    return completion


def _text_of(tokenizer: Tokenizer, token: int) -> str:
    """What the tokenizer reads as this token; empty for one that is no added token, which no text is read as."""
    added = tokenizer.added_tokens_decoder.get(token)
    return "" if added is None else str(added.content)


@lru_cache(maxsize=4)
def _template(tokenizer: Any, _text: object) -> ChatTemplate:
    try:
        template = ChatTemplate.of(tokenizer, _LIMITS)
    except ValueError as error:
        raise UnfitTokenizer(f"the base model's chat templates: {error}") from error
    if template is None:
        raise UnfitTokenizer("the base model's tokenizer has no chat template")
    return template


@lru_cache(maxsize=4)
def _end_of_turn(tokenizer: Any, _text: object) -> int | None:
    """As `end_of_turn`, which renders the template: too slow for each answer of a data set."""
    return end_of_turn(tokenizer)


def _answer_text(tokenizer: Tokenizer, prompt: Sequence[Message], completion: str) -> str:
    if not tokenizer.chat_template:
        return completion
    opening = _render(tokenizer, prompt, opened=True)
    whole = _render(tokenizer, (*prompt, Message("assistant", completion)), opened=False)
    if whole.startswith(opening):
        return whole[len(opening) :]
    before, thinking, after = opening.rpartition(_THINK)
    if thinking and whole.startswith(before):
        answer = whole[len(before) :]
        if not after.strip():
            # The template leaves the reasoning out of the answer, or keeps it as the sample has it.
            kept = _THOUGHT in answer
            return _reasoned(completion) + (answer.rpartition(_THOUGHT)[2].lstrip() if kept else answer)
        if after.strip() == _THOUGHT:
            # The prompt has closed the reasoning at once: serving generates what comes behind it.
            reasoned = answer.lstrip().startswith(_THINK) and _THOUGHT in answer
            return answer.partition(_THOUGHT)[2].lstrip() if reasoned else answer
    raise UnfitTokenizer("the base model's chat template renders a prompt differently once it is answered")


def _reasoned(completion: str) -> str:
    """What a model writes up to its answer where the prompt has opened its reasoning (DeepSeek R1).

    Templates leave the reasoning out of an answer that is in the talk already. One without any is learned as closed at
    once, in the form that Qwen3's own template writes.
    """
    reasoning, _, _ = completion.rpartition(_THOUGHT)
    thought = reasoning.strip().removeprefix(_THINK).strip()
    return f"{thought}\n{_THOUGHT}\n\n"


def _opening(tokenizer: Tokenizer, prompt: Sequence[Message]) -> str:
    if tokenizer.chat_template:
        return _render(tokenizer, prompt, opened=True)
    if len(prompt) != 1:
        raise UnfitTokenizer(
            "the base model's tokenizer has no chat template: only prompts of one message can be trained"
        )
    return prompt[0].content


def _render(tokenizer: Any, messages: Sequence[Message], *, opened: bool) -> str:
    talk = [{"role": message.role, "content": message.content} for message in messages]
    template = _template(tokenizer, tokenizer.chat_template)
    try:
        text = template.render(talk, add_generation_prompt=opened, now=TEMPLATE_DATE)
    except ChatTemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise UnfitRecord(f"the base model's chat template refuses messages of {roles}: {error}") from error
    return text
