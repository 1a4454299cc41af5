"""Prompt and completion as token ids and labels, by the model's own chat template."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
    """Token ids of prompt, completion and end of turn; `labels` repeat the ids where loss counts."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class EncodedSet:
    """The samples that fit, and what was left out."""

    samples: tuple[EncodedSample, ...]
    too_long: int
    longest: int

    @property
    def tokens(self) -> int:
        return sum(len(sample.input_ids) for sample in self.samples)

    @property
    def trained_tokens(self) -> int:
        return sum(sample.trained_tokens for sample in self.samples)


def encode(tokenizer: Tokenizer, prompt: str, completion: str) -> EncodedSample:
    """The ids the served model will see for this prompt, then the completion up to and with its end-of-sequence token.

    Prompt and completion are tokenised apart, since generation too begins from the prompt's own ids. Loss is on the
    completion and the end token alone.
    """
    opening, answer = _rendered(tokenizer, prompt, completion)
    before: list[int] = tokenizer(opening, add_special_tokens=not tokenizer.chat_template)["input_ids"]
    after: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    if end is None:
        raise UnfitTokenizer("the base model's tokenizer has no end-of-sequence token: answers would never end")
    # Templates often add a line break behind the end of turn; generation has stopped by then, so it earns no loss.
    after = [*after[: after.index(end)], end] if end in after else [*after, end]
    return EncodedSample((*before, *after), (*([IGNORED] * len(before)), *after))


def encode_all(tokenizer: Tokenizer, pairs: Iterable[tuple[str, str]], max_length: int) -> EncodedSet:
    """Encode all; a sample longer than `max_length` tokens is left out whole and counted, never cut."""
    encoded = [encode(tokenizer, prompt, completion) for prompt, completion in pairs]
    fitting = tuple(sample for sample in encoded if len(sample.input_ids) <= max_length)
    longest = max((len(sample.input_ids) for sample in encoded), default=0)
    return EncodedSet(fitting, len(encoded) - len(fitting), longest)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Ids of a prompt as generation sees it."""
    opening, _ = _rendered(tokenizer, prompt, "")
    ids: Sequence[int] = tokenizer(opening, add_special_tokens=not tokenizer.chat_template)["input_ids"]
    return list(ids)


def _rendered(tokenizer: Tokenizer, prompt: str, completion: str) -> tuple[str, str]:
    if not tokenizer.chat_template:
        return prompt, completion
    asked = [{"role": "user", "content": prompt}]
    answered = [*asked, {"role": "assistant", "content": completion}]
    opening: str = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole: str = tokenizer.apply_chat_template(answered, tokenize=False, add_generation_prompt=False)
    if not whole.startswith(opening):
        raise UnfitTokenizer("the base model's chat template renders a prompt differently once it is answered")
    return opening, whole[len(opening) :]
