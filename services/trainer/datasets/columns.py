"""From a row of a source to a record: which column holds what."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.trainer.datasets.dataset import InvalidSample, check_characters, check_text
from services.trainer.datasets.messages import (
    Turns,
    answer_of,
    common_beginning,
    conversation_of,
    decoded,
    is_message,
    is_messages,
    shown,
    turns_of,
)
from services.trainer.datasets.records import Kind, Message, Record, prompt_messages

Row = Mapping[str, object]
"""A row as its source gives it: column name → JSON value, or an `InvalidSample` for a value that cannot be read."""

Column = Annotated[str, Field(min_length=1, max_length=2000)]
_SLOT = re.compile(r"\{([^{}]+)\}")
_BEST = 5.0
_ABSENT = object()
_TOOLS = ("tools", "functions")
_LABELS = {"true": True, "false": False}
"""Of TRL's KTO, whether an answer is wanted, as JSON's value or CSV's text."""


class MissingColumn(InvalidSample):
    """A row has no column of the name that is read: in a table, no row has."""


class Columns(BaseModel):
    """Where the fields of a record are: a column's name, or a template that names columns in braces.

    `{"prompt": "title", "completion": "text"}` takes two columns as they are; `{"prompt": "What does {law} say of
    {topic}?"}` puts two into a sentence. What is left out is the column of the same name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Column = "prompt"
    system: Column = "system"
    completion: Column = "completion"
    chosen: Column = "chosen"
    rejected: Column = "rejected"
    completions: Column = "completions"
    """A list of texts, best first."""
    messages: Column = "messages"
    """A list of {"role", "content"}, of which the last is the assistant's; ShareGPT's `conversations` does for it."""
    rating: Column = "rating"
    """A number from 0 to `rating_best`; of kind rated without one, TRL's `label` (true is the best) does for it."""
    rating_best: float = Field(default=_BEST, gt=0, allow_inf_nan=False)
    """The best rating of the source's own scale; ratings are kept on a scale of 0 to 5."""
    id: Column = "id"
    """What the source calls the row."""
    synthetic: Column = "synthetic"
    """True for rows that a generator made."""
    subject: Column = "subject"
    """The person whom the row is about, or a list of several: `lorafleet data forget` finds its record by them."""

    @model_validator(mode="after")
    def _whole_columns(self) -> Self:
        for name in ("completions", "messages", "rating", "synthetic", "subject"):
            if _SLOT.search(getattr(self, name)):
                raise ValueError(f"{name}: {getattr(self, name)!r} is a template, expected a column's name")
        return self

    def record(self, row: Row, kind: Kind, origin: str) -> Record:
        """The record of a row; raises `InvalidSample` with the column at fault."""
        self._refuse_tools(row)
        completions: tuple[str, ...]
        match kind:
            case Kind.CONVERSATION:
                prompt, answer = conversation_of("messages", self._required(row, "messages", self._talk(row)))
                prompt = self._instructed(row, prompt)
                completions = (answer,)
            case Kind.PREFERENCE:
                prompt, completions = self._answered(row, {"chosen": self.chosen, "rejected": self.rejected})
            case Kind.RANKING:
                prompt, completions = self._ranked(row)
            case _:
                prompt, completions = self._answered(row, {"completion": self.completion})
        if len(set(completions)) < len(completions):
            raise InvalidSample("completions", "two equal texts", "texts that differ")
        return Record(
            kind=kind,
            prompt=prompt,
            completions=completions,
            rating=self._rating(row, required=kind is Kind.RATED),
            origin=origin,
            source_id=self._id(row),
            synthetic=_value(row, self.synthetic) in (True, 1, "true", "True", "1"),
        )

    def people(self, row: Row) -> tuple[str, ...]:
        """Names of the people whom a row is about; raises `InvalidSample` for a value that cannot be read."""
        found = decoded(_value(row, self.subject))
        names = map(_plain, found if isinstance(found, list) else [found])
        return tuple(name for name in dict.fromkeys(names) if name)

    def _refuse_tools(self, row: Row) -> None:
        """Refuses what an answer may call, in the forms of OpenAI and TRL, since no prompt would show it.

        A column that the recipe itself reads is not left out.
        """
        for name in _TOOLS:
            listed = decoded(row.get(name))
            if not isinstance(listed, list) or not any(isinstance(decoded(one), Mapping) for one in listed):
                continue
            parts = (self.prompt, self.system, self.completion, self.chosen, self.rejected, self.completions)
            if not any(name in (part, *_SLOT.findall(part)) for part in parts):
                raise InvalidSample(name, f"{len(listed)} tools", "rows without tools: prompts cannot show them")

    def _talk(self, row: Row) -> str:
        """The column of the conversation: ShareGPT's name for it where none was given."""
        other = "conversations"
        return other if self.messages == "messages" and row.get("messages") is None and other in row else self.messages

    def _answered(self, row: Row, columns: Mapping[str, str]) -> tuple[Turns, tuple[str, ...]]:
        """The prompt and the answers in these columns, each text or messages; a whole talk brings the prompt along."""
        found = {part: answer_of(part, self._required(row, part, column)) for part, column in columns.items()}
        return self._prompt(row, found), tuple(text for _, text in found.values())

    def _ranked(self, row: Row) -> tuple[Turns, tuple[str, ...]]:
        listed = decoded(_value(row, self.completions))
        if not isinstance(listed, list) or len(listed) < 2:
            raise InvalidSample("completions", shown(listed), "a list of two or more answers, best first")
        found = {f"completions.{at}": answer_of("completions", one) for at, one in enumerate(listed)}
        return self._prompt(row, found), tuple(text for _, text in found.values())

    def _prompt(self, row: Row, answers: Mapping[str, tuple[Turns, str]]) -> Turns:
        """The prompt's own column, else what the answers' talks have in common before them."""
        before = [turns for turns, _ in answers.values()]
        value = decoded(_value(row, self.prompt))
        if is_message(value):
            value = [value]
        if value is None and any(before):
            prompt = before[0]
            for turns in before[1:]:
                prompt = common_beginning(prompt, turns)
        elif is_messages(value):
            prompt = turns_of("prompt", value)
        else:
            text = self._required(row, "prompt", self.prompt)
            if not isinstance(text, str):
                raise InvalidSample("prompt", f"{type(text).__name__} in column {self.prompt!r}", "text or messages")
            check_text("prompt", text)
            prompt = prompt_messages(text)
            # A talk that ends with this very question is the fuller form of the same prompt.
            prompt = next((turns for turns in before if turns[-1:] == prompt), prompt)
        for part, (turns, _) in answers.items():
            if value is not None and turns and turns[0].role == "assistant":
                raise InvalidSample(
                    part,
                    f"{len(turns) + 1} turns that go on from the prompt",
                    "one answer; a talk of which several are learned is in messages, of kind conversation",
                )
            if turns and turns != prompt:
                raise InvalidSample(part, "other messages before the answer than the prompt's", "the prompt's, or none")
        if not any(turn.role == "user" for turn in prompt):
            raise InvalidSample("prompt", "no turn of user", "at least one")
        return self._instructed(row, prompt)

    def _instructed(self, row: Row, prompt: Turns) -> Turns:
        """The prompt after the row's system message, where it has one."""
        system = _plain(_value(row, self.system))
        if not system.strip():
            return prompt
        check_text("system", system)
        first = Message("system", system)
        if prompt[0].role == "system" and prompt[0] != first:
            raise InvalidSample("system", "another system message than the prompt's", "one of the two")
        return prompt if prompt[0] == first else (first, *prompt)

    def _required(self, row: Row, part: str, column: str) -> object:
        found = _value(row, column)
        if found is None and row.get(column, _ABSENT) is None:
            raise InvalidSample(part, f"null in column {column!r}", "text or messages")
        if found is None:
            raise MissingColumn(part, f"no column {column!r}", f"one of {_names(row)}")
        return found

    def _id(self, row: Row) -> str:
        found = _plain(_value(row, self.id))
        check_characters("id", found)
        return found[:200]

    def _rating(self, row: Row, *, required: bool) -> float | None:
        found = _value(row, self.rating)
        if found is None or found == "":
            if not required:
                return None
            wanted = _LABELS.get(str(row.get("label")).lower()) if self.rating == "rating" else None
            if wanted is None:
                expected = f"0 to {self.rating_best:g}, or true or false in a column 'label'"
                raise InvalidSample("rating", f"no value in column {self.rating!r}", expected)
            return _BEST if wanted else 0.0
        try:
            number = float(found) if isinstance(found, int | float | str) else float("nan")
        except ValueError:
            number = float("nan")
        if not 0 <= number <= self.rating_best:
            raise InvalidSample("rating", shown(found), f"a number from 0 to {self.rating_best:g}")
        return number * _BEST / self.rating_best


def _names(row: Row) -> str:
    return ", ".join(name[:100] for name in sorted(row)[:50]) or "none"


def _value(row: Row, column: str) -> object:
    """A column's value, or a template's text; None where a column is absent."""
    if not _SLOT.search(column):
        return _sound(row.get(column))
    if any(row.get(name) is None for name in _SLOT.findall(column)):
        return None
    return _SLOT.sub(lambda slot: _plain(_sound(row[slot.group(1)])), column)


def _sound(value: object) -> object:
    """The value of a column that is read; raises the fault that its file's reader found in it."""
    if isinstance(value, InvalidSample):
        raise value
    return value


def _plain(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
