"""Records as token ids and labels, by the model's own chat template."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.trainer.data.records import Kind, Message, Record, asked

IGNORED = -100
"""Label of a position without loss (torch's cross entropy ignores it)."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: str | None
    eos_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


class UnfitTokenizer(ValueError):
    """Completions cannot be trained with this tokenizer and template."""


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


@dataclass(frozen=True)
class EncodedSet:
    """The rows that fit, and what was left out."""

    rows: tuple[Row, ...]
    too_long: int
    longest: int

    @property
    def tokens(self) -> int:
        return sum(len(sample.input_ids) for row in self.rows for sample in row)

    @property
    def trained_tokens(self) -> int:
        return sum(sample.trained_tokens for row in self.rows for sample in row)


def encode(
    tokenizer: Tokenizer, prompt: Sequence[Message], completion: str, *, earlier_answers: bool = False
) -> EncodedSample:
    """The ids the served model will see for this prompt, then the completion up to and with its end-of-sequence token.

    Prompt and completion are tokenised apart, since generation too begins from the prompt's own ids. Loss is on the
    completion and the end token alone; with `earlier_answers` also on the answers within the prompt.

    Raises:
        UnfitTokenizer: there is no end token, or the template cannot render the talk turn by turn.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise UnfitTokenizer("the base model's tokenizer has no end-of-sequence token: answers would never end")
    ids: list[int] = []
    labels: list[int] = []
    for text, trained in _turns(tokenizer, prompt, completion, earlier_answers=earlier_answers):
        first = not ids and not tokenizer.chat_template
        piece: list[int] = tokenizer(text, add_special_tokens=first)["input_ids"]
        if trained:
            # Templates often add a line break behind the end of turn; generation has stopped by then: it earns no loss.
            answer = [*piece[: piece.index(end)], end] if end in piece else [*piece, end]
            ids += answer
            labels += answer
            piece = piece[len(answer) :]
        ids += piece
        labels += [IGNORED] * len(piece)
    while labels and labels[-1] == IGNORED:  # what a template writes behind the last end token
        ids.pop()
        labels.pop()
    return EncodedSample(array("i", ids), array("i", labels))


def encode_record(tokenizer: Tokenizer, record: Record, answers: int) -> Row:
    """The first `answers` completions of a record; of a conversation, the earlier answers are trained too."""
    talk = record.kind is Kind.CONVERSATION
    return tuple(
        encode(tokenizer, record.prompt, completion, earlier_answers=talk)
        for completion in record.completions[:answers]
    )


def encode_all(tokenizer: Tokenizer, records: Iterable[Record], max_length: int, *, answers: int = 1) -> EncodedSet:
    """Encode all; a record of which an answer is longer than `max_length` tokens is left out whole and counted, never
    cut."""
    rows = [encode_record(tokenizer, record, answers) for record in records]
    longest = [max(len(sample.input_ids) for sample in row) for row in rows]
    fitting = tuple(row for row, length in zip(rows, longest, strict=True) if length <= max_length)
    return EncodedSet(fitting, len(rows) - len(fitting), max(longest, default=0))


def prompt_ids(tokenizer: Tokenizer, prompt: Sequence[Message] | str) -> list[int]:
    """Ids of a prompt as generation sees it."""
    messages = asked(prompt) if isinstance(prompt, str) else prompt
    ids: Sequence[int] = tokenizer(_opening(tokenizer, messages), add_special_tokens=not tokenizer.chat_template)[
        "input_ids"
    ]
    return list(ids)


def _turns(
    tokenizer: Tokenizer, prompt: Sequence[Message], completion: str, *, earlier_answers: bool
) -> list[tuple[str, bool]]:
    """The talk as pieces of text, each with whether it is an answer to train."""
    messages = (*prompt, Message("assistant", completion))
    if not tokenizer.chat_template:
        return [(_opening(tokenizer, prompt), False), (completion, True)]
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    pieces: list[tuple[str, bool]] = []
    written = ""
    for at in answers if earlier_answers else answers[-1:]:
        opening = _render(tokenizer, messages[:at], opened=True)
        whole = _render(tokenizer, messages[: at + 1], opened=False)
        if not (opening.startswith(written) and whole.startswith(opening)):
            raise UnfitTokenizer("the base model's chat template renders a prompt differently once it is answered")
        pieces += [(opening[len(written) :], False), (whole[len(opening) :], True)]
        written = whole
    return pieces


def _opening(tokenizer: Tokenizer, prompt: Sequence[Message]) -> str:
    if tokenizer.chat_template:
        return _render(tokenizer, prompt, opened=True)
    if len(prompt) != 1:
        raise UnfitTokenizer(
            "the base model's tokenizer has no chat template: only prompts of one message can be trained"
        )
    return prompt[0].content


def _render(tokenizer: Tokenizer, messages: Sequence[Message], *, opened: bool) -> str:
    talk = [{"role": message.role, "content": message.content} for message in messages]
    text: str = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=opened)
    return text
