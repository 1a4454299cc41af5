"""From a row of a source to a record: which column holds what."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.trainer.data.dataset import InvalidSample, check_text
from services.trainer.data.records import Kind, Message, Record, Role, asked

Row = Mapping[str, object]
"""A row as its source gives it: column name → JSON value."""

Column = Annotated[str, Field(min_length=1, max_length=2000)]
_SLOT = re.compile(r"\{([^{}]+)\}")
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
# What other tools write for the same roles.
_ROLES |= {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant"}
_BEST = 5.0


class Columns(BaseModel):
    """Where the parts of a record are: a column's name, or a template that names columns in braces.

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
    """A list of {"role", "content"}, of which the last is the assistant's."""
    rating: Column = "rating"
    """A number from 0 to `rating_best`."""
    rating_best: float = Field(default=_BEST, gt=0, allow_inf_nan=False)
    """The best rating of the source's own scale; ratings are kept on a scale of 0 to 5."""
    id: Column = "id"
    """What the source calls the row."""
    synthetic: Column = "synthetic"
    """True for rows that a generator made."""

    @model_validator(mode="after")
    def _whole_columns(self) -> Self:
        for name in ("completions", "messages", "rating", "synthetic"):
            if _SLOT.search(getattr(self, name)):
                raise ValueError(f"{name}: {getattr(self, name)!r} is a template, expected a column's name")
        return self

    def record(self, row: Row, kind: Kind, origin: str) -> Record:
        """The record of a row; raises `InvalidSample` with the column at fault."""
        match kind:
            case Kind.CONVERSATION:
                prompt, completions = self._conversation(row)
            case Kind.PREFERENCE:
                prompt = self._asked(row)
                completions = (self._text(row, "chosen"), self._text(row, "rejected"))
            case Kind.RANKING:
                prompt, completions = self._asked(row), self._ranked(row)
            case _:
                prompt, completions = self._asked(row), (self._text(row, "completion"),)
        if len(set(completions)) < len(completions):
            raise InvalidSample("completions", "two equal texts", "texts that differ")
        return Record(
            kind=kind,
            prompt=prompt,
            completions=completions,
            rating=self._rating(row, required=kind is Kind.RATED),
            origin=origin,
            source_id=_plain(_value(row, self.id))[:200],
            synthetic=_value(row, self.synthetic) in (True, 1, "true", "True", "1"),
        )

    def _asked(self, row: Row) -> tuple[Message, ...]:
        system = _value(row, self.system)
        return asked(self._text(row, "prompt"), system=_plain(system))

    def _text(self, row: Row, part: str) -> str:
        column: str = getattr(self, part)
        found = _value(row, column)
        if found is None:
            raise InvalidSample(part, f"no column {column!r}", f"one of {_names(row)}")
        if not isinstance(found, str):
            raise InvalidSample(part, f"{type(found).__name__} in column {column!r}", "text")
        check_text(part, found)
        return found

    def _ranked(self, row: Row) -> tuple[str, ...]:
        found = _value(row, self.completions)
        found = _decoded(found)
        if not isinstance(found, list) or len(found) < 2:
            raise InvalidSample("completions", _shown(found), "a list of two or more texts, best first")
        for text in found:
            if not isinstance(text, str):
                raise InvalidSample("completions", _shown(text), "text")
            check_text("completions", text)
        return tuple(found)

    def _conversation(self, row: Row) -> tuple[tuple[Message, ...], tuple[str, ...]]:
        found = _decoded(_value(row, self.messages))
        if not isinstance(found, list) or len(found) < 2:
            raise InvalidSample("messages", _shown(found), 'a list of two or more {"role", "content"}')
        turns = tuple(_message(one) for one in found)
        if turns[-1].role != "assistant":
            raise InvalidSample("messages", f"a last turn of {turns[-1].role}", "one of assistant")
        if not any(turn.role == "user" for turn in turns):
            raise InvalidSample("messages", "no turn of user", "at least one")
        return turns[:-1], (turns[-1].content,)

    def _rating(self, row: Row, *, required: bool) -> float | None:
        found = _value(row, self.rating)
        if found is None or found == "":
            if required:
                raise InvalidSample("rating", f"no value in column {self.rating!r}", f"0 to {self.rating_best:g}")
            return None
        try:
            number = float(found) if isinstance(found, int | float | str) else float("nan")
        except ValueError:
            number = float("nan")
        if not 0 <= number <= self.rating_best:
            raise InvalidSample("rating", _shown(found), f"a number from 0 to {self.rating_best:g}")
        return number * _BEST / self.rating_best


def _names(row: Row) -> str:
    return ", ".join(name[:100] for name in sorted(row)[:50]) or "none"


def _value(row: Row, column: str) -> object:
    """A column's value, or a template's text; None where a column is absent."""
    if not _SLOT.search(column):
        return row.get(column)
    if any(row.get(name) is None for name in _SLOT.findall(column)):
        return None
    return _SLOT.sub(lambda slot: _plain(row[slot.group(1)]), column)


def _plain(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _decoded(value: object) -> object:
    """CSV and SQL give lists as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        decoded: object = json.loads(value)
    except ValueError:
        return value
    return decoded


def _message(turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise InvalidSample("messages", _shown(turn), '{"role", "content"}')
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role not in _ROLES:
        raise InvalidSample("messages", f"role {role!r}", "system, user or assistant")
    if not isinstance(content, str):
        raise InvalidSample("messages", f"content {_shown(content)}", "text")
    check_text("messages", content)
    return Message(_ROLES[role], content)


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]
